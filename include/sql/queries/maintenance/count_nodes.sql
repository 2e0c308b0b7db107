-- What delete_nodes would delete, for a dry run. Index shard_group_open_node.
SELECT count(*) AS rows
FROM collect.node AS n
WHERE
    n.status IN ('LEFT', 'LOST') AND n.heartbeat_at < now() - make_interval(secs => %(keep_s)s)
    AND NOT EXISTS (
        SELECT FROM collect.shard_group AS g WHERE g.status = 'OPEN' AND coalesce(g.node, g.placed_node) = n.id
    )
