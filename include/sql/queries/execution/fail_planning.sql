-- Planning has failed: settling decides what becomes of the task. Primary key; another attempt is not touched.
UPDATE collect.task
SET error = %(error)s, groups_reserved = 0, progress_at = now()
WHERE id = %(task_id)s AND attempt = %(attempt)s AND status = 'DISPATCHED'
