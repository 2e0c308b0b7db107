-- Tasks that a node can take now: published again, as new generations. Primary key; rows that another pass has in hand
-- are skipped. Returns them.
WITH chosen AS (
    SELECT id FROM collect.task
    WHERE id = ANY(%(task_ids)s::bigint[]) AND status = 'HELD' AND held_for = 'node'
    ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE collect.task AS t
SET
    status = 'QUEUED', reason = NULL, held_for = NULL, moved_by = %(actor)s, generation = t.generation + 1,
    queued_at = now(), progress_at = now()
FROM chosen
WHERE t.id = chosen.id
RETURNING t.id, t.generation, t.priority, t.lane, t.retry_count
