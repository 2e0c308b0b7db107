-- A shard group starts; a closed one does not start again. Its node has taken what it was given: what it did not take
-- before is forgotten. Primary keys.
WITH started AS (
    UPDATE collect.shard_group
    SET node = %(node)s, pid = %(pid)s, started_at = coalesce(started_at, now()), alive_at = now(), doubted_at = NULL
    WHERE run_id = %(run_id)s AND group_no = %(group_no)s AND status = 'OPEN'
    RETURNING lane, label, concurrency, requests_per_s
),

trusted AS (
    UPDATE collect.node AS n
    SET dispatch_failures = 0, holds = 0, held_until = NULL
    FROM started
    WHERE n.id = %(node)s AND (n.dispatch_failures > 0 OR n.holds > 0)
)

SELECT lane, label, concurrency, requests_per_s FROM started
