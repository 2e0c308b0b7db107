-- What delete_bad_rows would delete, for a dry run. Index bad_row_shard.
SELECT count(*) AS rows FROM collect.bad_row WHERE task_id = ANY(%(task_ids)s::bigint[])
