-- How far traces or bad rows are deleted. Primary key.
SELECT finished_at, task_id FROM collect.retention_mark WHERE kind = %(kind)s
