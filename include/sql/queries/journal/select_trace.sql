-- A task's trace, oldest first. Index trace_task.
SELECT at, stage, attempt, shard_no, duration_s, rows, bytes, request, response, error
FROM collect.trace
WHERE task_id = %(task_id)s AND (%(stage)s::text IS NULL OR stage = %(stage)s)
ORDER BY id
