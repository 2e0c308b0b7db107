-- All nodes as placement looks at them: what they are, how they do, and how many shard groups they have: open ones, by
-- where they run or were sent, and one for each task that is claimed for them and not planned yet. Indexes
-- shard_group_open_node and task_open; a few thousand nodes.
WITH placed AS (
    SELECT coalesce(node, placed_node) AS node FROM collect.shard_group WHERE status = 'OPEN'
    UNION ALL
    SELECT nodes[1] AS node FROM collect.task WHERE status IN ('CLAIMED', 'DISPATCHED') AND groups_reserved > 0
),

counted AS (
    SELECT p.node, count(*) AS groups FROM placed AS p GROUP BY p.node
)

SELECT
    n.id, n.labels, n.kinds, n.slots, n.cpu_percent, n.memory_percent, n.disk_percent,
    CASE WHEN n.status = 'ACTIVE' AND n.drain_until IS NOT NULL THEN 'DRAINING' ELSE n.status END AS status,
    extract(EPOCH FROM n.held_until - now())::double precision AS held_back_s,
    coalesce(c.groups, 0) AS groups
FROM collect.node AS n
LEFT JOIN counted AS c ON c.node = n.id
ORDER BY n.id
