-- Nodes change their state; each change is logged. A loss is remembered (the last ten); who comes back begins anew.
WITH moved AS (
    UPDATE collect.node AS n
    SET
        status = m.status,
        status_reason = m.reason,
        status_since = now(),
        lost_at = CASE
            WHEN m.status = 'LOST' THEN (array_append(n.lost_at, now()))[greatest(1, cardinality(n.lost_at) - 8):]
            ELSE n.lost_at
        END,
        back_at = CASE WHEN n.status IN ('LOST', 'LEFT') THEN now() ELSE n.back_at END
    FROM unnest(%(ids)s::text[], %(statuses)s::text[], %(reasons)s::text[]) AS m (id, status, reason),
        collect.node AS before
    WHERE n.id = m.id AND before.id = n.id AND n.status <> m.status
    RETURNING n.id, before.status AS from_status, n.status AS to_status, n.status_reason AS reason
),

logged AS (
    INSERT INTO collect.node_log (node_id, from_status, to_status, reason)
    SELECT id, from_status, to_status, reason FROM moved
)

SELECT id, from_status, to_status, reason FROM moved ORDER BY id
