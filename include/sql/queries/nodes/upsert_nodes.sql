-- Takes in the newest heartbeat of each node. Of the same start of its agent a higher number is newer; of two starts the
-- later one (by the node's own clock), or any once the other has been silent for as long as a key lives, by this
-- database's clock. Another machine gets a node's id only when that node is silent. Returns the nodes that were
-- brought up to date. Primary key.
INSERT INTO collect.node AS n (
    id, machine, boot_id, started_at, seq, name, address, version, labels, kinds, slots,
    cpu_percent, memory_percent, memory_bytes, disk_percent, disk_free_bytes, load_1, workers_bytes, groups,
    clock_skew_s, draining, leaving
)
SELECT
    h.node_id, h.machine, h.boot_id, h.started_at, h.seq, h.name, h.address, h.version, h.labels, h.kinds, h.slots,
    h.cpu_percent, h.memory_percent, h.memory_bytes, h.disk_percent, h.disk_free_bytes, h.load_1, h.workers_bytes,
    h.groups, h.clock_skew_s, h.draining, h.leaving
FROM jsonb_to_recordset(%(heartbeats)s) AS h (
    node_id text, machine text, boot_id text, started_at timestamptz, seq bigint, name text, address text, version text,
    labels jsonb, kinds text[], slots integer, cpu_percent real, memory_percent real, memory_bytes bigint,
    disk_percent real, disk_free_bytes bigint, load_1 real, workers_bytes bigint, groups integer,
    clock_skew_s double precision, draining boolean, leaving boolean
)
ORDER BY h.node_id
ON CONFLICT (id) DO UPDATE SET
    machine = excluded.machine,
    boot_id = excluded.boot_id,
    started_at = excluded.started_at,
    seq = excluded.seq,
    name = excluded.name,
    address = excluded.address,
    version = excluded.version,
    labels = excluded.labels,
    kinds = excluded.kinds,
    slots = excluded.slots,
    cpu_percent = excluded.cpu_percent,
    memory_percent = excluded.memory_percent,
    memory_bytes = excluded.memory_bytes,
    disk_percent = excluded.disk_percent,
    disk_free_bytes = excluded.disk_free_bytes,
    load_1 = excluded.load_1,
    workers_bytes = excluded.workers_bytes,
    groups = excluded.groups,
    clock_skew_s = excluded.clock_skew_s,
    draining = excluded.draining,
    leaving = excluded.leaving,
    -- An agent that was started after the drain takes work again.
    drain_until = CASE WHEN excluded.boot_id IN (n.boot_id, n.drain_boot_id) THEN n.drain_until END,
    heartbeat_at = now()
WHERE
    (n.machine = excluded.machine AND n.boot_id = excluded.boot_id AND n.seq < excluded.seq)
    OR (n.machine = excluded.machine AND n.boot_id <> excluded.boot_id AND n.started_at < excluded.started_at)
    OR (
        n.boot_id <> excluded.boot_id
        AND (n.leaving OR n.heartbeat_at < now() - make_interval(secs => %(alive_s)s))
    )
RETURNING n.id
