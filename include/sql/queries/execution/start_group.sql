-- A shard group starts; a closed one does not start again. Its node has taken what it was given: what it did not take
-- before is forgotten. `others`: whether its run has other groups open; `draining`: it shall hand back at once what it was
-- given. Primary keys.
WITH started AS (
    UPDATE collect.shard_group AS g
    SET
        node = %(node)s, pid = %(pid)s, started_at = coalesce(g.started_at, now()), alive_at = now(), doubted_at = NULL
    WHERE g.run_id = %(run_id)s AND g.group_no = %(group_no)s AND g.status = 'OPEN'
    RETURNING g.run_id, g.group_no, g.lane, g.label, g.concurrency, g.requests_per_s, g.hand_back
),

trusted AS (
    UPDATE collect.node AS n
    SET dispatch_failures = 0, holds = 0, held_until = NULL
    FROM started
    WHERE n.id = %(node)s AND (n.dispatch_failures > 0 OR n.holds > 0)
)

SELECT
    s.lane, s.label, s.concurrency, s.requests_per_s, count(o.run_id) > 0 AS others,
    s.hand_back OR coalesce(bool_or(n.drain_until IS NOT NULL), false) AS draining
FROM started AS s
LEFT JOIN collect.shard_group AS o ON o.run_id = s.run_id AND o.group_no <> s.group_no AND o.status = 'OPEN'
LEFT JOIN collect.node AS n ON n.id = %(node)s
GROUP BY s.lane, s.label, s.concurrency, s.requests_per_s, s.hand_back
