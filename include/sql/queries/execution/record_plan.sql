-- What planning found. Primary key; the caller holds the task's lock.
UPDATE collect.task
SET shards_total = %(shards_total)s, total_rows = %(total_rows)s, groups_reserved = 0, progress_at = now()
WHERE id = %(task_id)s
