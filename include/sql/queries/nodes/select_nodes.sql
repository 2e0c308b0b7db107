-- Nodes as people look at them, with the shard groups that are open on each.
SELECT
    n.id, n.name, n.address, n.status, n.status_reason, n.status_since, n.labels, n.kinds, n.slots, n.version,
    n.cpu_percent, n.memory_percent, n.memory_bytes, n.disk_percent, n.disk_free_bytes, n.load_1, n.workers_bytes,
    n.clock_skew_s, n.heartbeat_at, n.first_seen_at,
    extract(EPOCH FROM now() - n.heartbeat_at)::double precision AS heartbeat_age_s,
    (SELECT count(*) FROM collect.shard_group AS g WHERE g.status = 'OPEN' AND g.node = n.id) AS groups
FROM collect.node AS n
ORDER BY n.id
