-- Cancels tasks that have not ended, and in the same transaction fences off whoever holds their unfinished shards: what
-- is landing now is waited for or refused, and nothing lands after this commits. Locks tasks in id order, then shards,
-- as settling does. Primary keys. Returns what moved.
WITH chosen AS (
    SELECT id, status AS from_status FROM collect.task
    WHERE
        id = ANY(%(task_ids)s::bigint[])
        AND status IN ('QUEUED', 'HELD', 'CLAIMED', 'DISPATCHED', 'RUNNING', 'RETRYING', 'DISPATCH_FAILED')
    ORDER BY id
    FOR UPDATE
),
moved AS (
    UPDATE collect.task AS t
    SET
        status = 'CANCELLED', reason = %(reason)s, moved_by = %(actor)s, due_at = NULL, groups_reserved = 0,
        progress_at = now(), finished_at = clock_timestamp()
    FROM chosen
    WHERE t.id = chosen.id
    RETURNING t.id, t.source, t.lane, t.run_id, chosen.from_status
),
fenced AS (
    UPDATE collect.shard AS s
    SET fencing_token = s.fencing_token + 1
    FROM moved
    WHERE s.task_id = moved.id AND s.status <> 'DONE'
)
SELECT id, source, lane, run_id, from_status FROM moved ORDER BY id
