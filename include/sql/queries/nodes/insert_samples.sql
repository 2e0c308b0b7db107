-- The machine log: a row a heartbeat; one that comes again adds none. `age_s`: how much older it is than the node's
-- newest of the same block, by the node's clock.
INSERT INTO collect.node_sample (
    node_id, at, boot_id, seq, cpu_percent, memory_percent, disk_percent, load_1,
    received_bytes_per_s, sent_bytes_per_s, workers_bytes, groups, clock_skew_s
)
SELECT
    h.node_id, now() - make_interval(secs => h.age_s), h.boot_id, h.seq, h.cpu_percent, h.memory_percent,
    h.disk_percent, h.load_1, h.received_bytes_per_s, h.sent_bytes_per_s, h.workers_bytes, h.groups, h.clock_skew_s
FROM jsonb_to_recordset(%(heartbeats)s) AS h (
    node_id text, age_s double precision, boot_id text, seq bigint, cpu_percent real, memory_percent real,
    disk_percent real, load_1 real, received_bytes_per_s real, sent_bytes_per_s real, workers_bytes bigint,
    groups integer, clock_skew_s double precision
)
ON CONFLICT DO NOTHING
