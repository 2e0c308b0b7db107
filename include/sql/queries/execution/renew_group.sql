-- A shard group says that it lives. No row: it is closed, since its run was repaired or settled, and has nothing left to do.
-- `draining`: its node shall hand back what it has not done. Primary keys.
UPDATE collect.shard_group AS g
SET alive_at = now(), doubted_at = NULL
WHERE g.run_id = %(run_id)s AND g.group_no = %(group_no)s AND g.status = 'OPEN'
RETURNING coalesce((SELECT n.drain_until IS NOT NULL FROM collect.node AS n WHERE n.id = g.node), false) AS draining
