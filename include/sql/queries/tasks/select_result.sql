-- What a task came to. Primary key.
SELECT params, path, result, error, submitted_by, submitted_via, due_at FROM collect.task WHERE id = %(task_id)s
