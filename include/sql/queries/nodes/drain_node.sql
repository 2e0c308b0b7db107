-- A node takes no new work, and what runs on it is handed back after its page; or, without seconds, takes work again.
-- Primary key. No row: there is no such node.
UPDATE collect.node AS n
SET
    drain_until = now() + make_interval(secs => %(within_s)s::float8),
    drain_boot_id = coalesce(%(boot_id)s::text, n.boot_id)
WHERE n.id = %(node_id)s
RETURNING n.id
