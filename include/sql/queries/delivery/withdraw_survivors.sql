-- A survivor's own caller cancels, and others wait for its work: it goes on for them. Told in the task log, since nothing
-- moves. The caller holds the locks (lock_cancelled). Primary key; a second withdrawal changes nothing. Returns them.
WITH withdrawn AS (
    UPDATE collect.task
    SET
        withdrawn_at = now(), moved_by = %(actor)s,
        -- What is set aside or waits for a retry says on why; withdrawn_at and the log tell of the rest.
        reason = CASE WHEN status IN ('HELD', 'RETRYING', 'DISPATCH_FAILED') THEN reason ELSE %(reason)s END
    WHERE
        id = ANY(%(task_ids)s::bigint[])
        AND withdrawn_at IS NULL
        AND status IN ('QUEUED', 'HELD', 'CLAIMED', 'DISPATCHED', 'RUNNING', 'RETRYING', 'DISPATCH_FAILED')
    RETURNING id, status, attempt, generation, priority
)
INSERT INTO collect.task_log (task_id, from_status, to_status, attempt, generation, priority, reason, actor)
SELECT w.id, w.status, w.status, w.attempt, w.generation, w.priority, %(reason)s, %(actor)s FROM withdrawn AS w
RETURNING task_id
