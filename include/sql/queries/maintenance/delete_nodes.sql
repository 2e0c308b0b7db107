-- Deletes nodes that have not been heard of in a long time and hold no shard group, some at a time; the caller goes on while
-- as many go as it asked for. Index shard_group_open_node, primary key. One that comes back meanwhile stays, and one that
-- comes back later is made anew by its heartbeat.
WITH gone AS (
    SELECT n.id
    FROM collect.node AS n
    WHERE
        n.status IN ('LEFT', 'LOST') AND n.heartbeat_at < now() - make_interval(secs => %(keep_s)s)
        AND NOT EXISTS (
            SELECT FROM collect.shard_group AS g WHERE g.status = 'OPEN' AND coalesce(g.node, g.placed_node) = n.id
        )
    ORDER BY n.id
    LIMIT %(most)s
)
DELETE FROM collect.node AS n
USING gone AS g
WHERE n.id = g.id AND n.status IN ('LEFT', 'LOST') AND n.heartbeat_at < now() - make_interval(secs => %(keep_s)s)
