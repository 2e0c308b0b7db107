-- Gives waiting tasks another priority, as a new generation in the lane that takes it; their old message is dropped at
-- claim. Tasks under way, ended, or of that priority already are not touched. Locks tasks in id order. Primary key.
WITH chosen AS (
    SELECT id FROM collect.task
    WHERE
        id = ANY(%(task_ids)s::bigint[])
        AND status IN ('QUEUED', 'HELD', 'RETRYING')
        AND priority <> %(priority)s
    ORDER BY id
    FOR NO KEY UPDATE
)
UPDATE collect.task AS t
SET
    priority = %(priority)s, lane = %(lane)s, generation = t.generation + 1, moved_by = %(actor)s,
    reason = %(reason)s, progress_at = now(),
    -- HELD tasks are published when they are released.
    confirmed_generation = CASE WHEN t.status = 'HELD' THEN t.generation + 1 ELSE t.confirmed_generation END
FROM chosen
WHERE t.id = chosen.id
RETURNING
    t.id, t.status, t.generation, t.priority, t.lane, t.retry_count,
    extract(EPOCH FROM t.due_at - now())::float8 AS due_in_s
