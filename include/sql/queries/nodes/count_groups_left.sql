-- Shard groups that run on a node, that it was sent, or that are about to be sent there. Partial indexes of open groups
-- and tasks.
SELECT
    (
        SELECT count(*) FROM collect.shard_group
        WHERE status = 'OPEN' AND coalesce(node, placed_node) = %(node_id)s
    ) + (
        SELECT count(*) FROM collect.task WHERE status = 'CLAIMED' AND nodes @> ARRAY[%(node_id)s]
    ) AS groups
