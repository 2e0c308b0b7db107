-- The first shard group of an attempt has started. Primary key; later groups move nothing.
UPDATE collect.task
SET status = 'RUNNING', moved_by = %(actor)s, progress_at = now(), refused_nodes = '{}', dispatch_failures = 0
WHERE id = %(task_id)s AND attempt = %(attempt)s AND status = 'DISPATCHED'
