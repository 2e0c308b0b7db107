-- Deletes the bad rows of tasks that are kept. Index bad_row_shard. Two at once delete each row once.
DELETE FROM collect.bad_row WHERE task_id = ANY(%(task_ids)s::bigint[])
