-- Deletes the traces of tasks that are kept. Index trace_task. Two at once delete each row once.
DELETE FROM collect.trace WHERE task_id = ANY(%(task_ids)s::bigint[])
