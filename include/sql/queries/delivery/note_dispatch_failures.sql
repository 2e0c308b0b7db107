-- Nodes that did not take what they were sent. After so many in a row, and after each one that follows a hold, a node is
-- held back for a time that doubles; of a hold there is an event. Primary key. Returns the nodes held.
WITH failed AS (
    UPDATE collect.node AS n
    SET
        dispatch_failures = n.dispatch_failures + 1,
        holds = n.holds + h.holds,
        held_until = CASE
            WHEN h.holds = 1
                THEN now() + make_interval(secs => least(%(max_hold_s)s, %(hold_s)s * power(%(factor)s, least(n.holds, 30))))
            ELSE n.held_until
        END
    FROM (
        SELECT id, (holds > 0 OR dispatch_failures + 1 >= %(failures)s)::int AS holds FROM collect.node
        WHERE id = ANY(%(node_ids)s) AND coalesce(held_until, now()) <= now()
    ) AS h
    WHERE n.id = h.id
    RETURNING n.id, h.holds, n.held_until, n.dispatch_failures
),

told AS (
    INSERT INTO collect.event (kind, severity, subject, message)
    SELECT
        'node_held_back', 'warning', 'node ' || id,
        'it did not take ' || dispatch_failures || ' dispatches in a row; held back until ' || held_until
    FROM failed
    WHERE holds = 1
)

SELECT id, held_until FROM failed WHERE holds = 1 ORDER BY id
