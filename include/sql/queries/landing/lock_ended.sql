-- Locks a task if it has ended, or waits for another, and cannot go on from its rows aside. Planning makes the table
-- under the same lock, so what is dropped under it is nobody's. Primary key.
SELECT id FROM collect.task
WHERE id = %(task_id)s AND status IN ('CANCELLED', 'COMPLETED', 'PARTIAL', 'MERGED')
FOR NO KEY UPDATE
