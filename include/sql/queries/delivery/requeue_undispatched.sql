-- Tasks that no node took are tried again, on all nodes, when they are due. Index task_dispatch_failed; rows that another
-- pass has in hand are skipped. Returns them.
WITH due AS (
    SELECT id FROM collect.task
    WHERE status = 'DISPATCH_FAILED' AND coalesce(due_at, now()) <= now()
    ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE collect.task AS t
SET
    status = 'QUEUED', reason = NULL, moved_by = %(actor)s, generation = t.generation + 1, queued_at = now(),
    due_at = NULL, refused_nodes = '{}', progress_at = now()
FROM due
WHERE t.id = due.id
RETURNING t.id, t.generation, t.priority, t.lane, t.retry_count
