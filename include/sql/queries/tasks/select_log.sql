-- A task's moves, oldest first. Index task_log_task.
SELECT at, from_status, to_status, attempt, generation, priority, reason, actor
FROM collect.task_log
WHERE task_id = %(task_id)s
ORDER BY id
