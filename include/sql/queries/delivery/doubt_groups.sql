-- Shard groups that are silent: one that lives says so before it counts as lost. Primary key.
UPDATE collect.shard_group AS g
SET doubted_at = now()
FROM unnest(%(run_ids)s::text[], %(group_nos)s::int[]) AS d (run_id, group_no)
WHERE g.run_id = d.run_id AND g.group_no = d.group_no AND g.status = 'OPEN' AND g.doubted_at IS NULL
