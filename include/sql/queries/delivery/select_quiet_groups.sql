-- Open shard groups that have not said for a while that they live, or have not started yet. Nothing while PostgreSQL has
-- just started: those that live have the time to say so. Index shard_group_open.
SELECT
    g.run_id, g.group_no, g.label, g.map_index, g.placed_node, coalesce(g.node, g.placed_node) AS node,
    g.started_at IS NOT NULL AS started,
    extract(EPOCH FROM now() - coalesce(g.alive_at, g.opened_at))::double precision AS quiet_s,
    extract(EPOCH FROM now() - g.doubted_at)::double precision AS doubted_s,
    coalesce(n.status IN ('LOST', 'LEFT'), false) AS node_gone,
    coalesce(g.node, g.placed_node) IS NOT NULL AS placed,
    -- A task that runs again names another run by now: its lane's DAG is the one, then.
    coalesce((SELECT max(t.dag_id) FROM collect.task AS t WHERE t.run_id = g.run_id), 'collect_' || g.lane) AS dag_id
FROM collect.shard_group AS g
LEFT JOIN collect.node AS n ON n.id = coalesce(g.node, g.placed_node)
WHERE
    g.status = 'OPEN'
    AND coalesce(g.alive_at, g.opened_at) < now() - make_interval(secs => %(quiet_s)s)
    AND pg_postmaster_start_time() < now() - make_interval(secs => %(settled_s)s)
ORDER BY g.run_id, g.group_no
