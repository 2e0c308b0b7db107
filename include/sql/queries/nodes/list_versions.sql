-- The nodes that live, and the code that each has started with, as its newest heartbeat says. Sequential scan of a table
-- with a row a node; read only.
SELECT id, version FROM collect.node
WHERE status IN ('ACTIVE', 'SUSPECT', 'DRAINING')
ORDER BY id
