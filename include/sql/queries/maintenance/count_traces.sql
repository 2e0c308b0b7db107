-- What delete_traces would delete, for a dry run. Index trace_task.
SELECT count(*) AS rows FROM collect.trace WHERE task_id = ANY(%(task_ids)s::bigint[])
