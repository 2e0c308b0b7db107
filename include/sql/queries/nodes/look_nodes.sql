-- All nodes, for finding out whether a pass would change a state: the same as lock_nodes, without locks. A few thousand rows.
SELECT
    id,
    status,
    draining,
    leaving,
    extract(EPOCH FROM now() - status_since)::double precision AS status_for_s,
    extract(EPOCH FROM now() - back_at)::double precision AS back_for_s,
    (
        SELECT count(*)
        FROM unnest(lost_at) AS l (happened_at)
        WHERE l.happened_at > now() - make_interval(secs => %(window_s)s)
    ) AS losses
FROM collect.node
ORDER BY id
