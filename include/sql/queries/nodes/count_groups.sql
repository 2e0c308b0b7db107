-- Shard groups that run on a node. Partial index of open groups.
SELECT count(*) AS groups FROM collect.shard_group WHERE status = 'OPEN' AND node = %(node_id)s
