-- A redrive, if it is under way: one step of it at a time. Primary key.
SELECT id, rate_per_s, credit, reason, requested_by, stepped_at FROM collect.redrive
WHERE id = %(redrive_id)s AND finished_at IS NULL
FOR NO KEY UPDATE
