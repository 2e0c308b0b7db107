-- Locks a task while its shards and groups are written, if it is still this attempt's. Primary key.
SELECT shards_total, total_rows FROM collect.task
WHERE id = %(task_id)s AND attempt = %(attempt)s AND status = 'DISPATCHED'
FOR NO KEY UPDATE
