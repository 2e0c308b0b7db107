-- A shard group says that it lives. No row: it is closed, since its run was repaired or settled: nothing is left to do.
-- `draining`: it shall hand back what it has not done, since its node drains or its worker ends. Primary keys.
UPDATE collect.shard_group AS g
SET alive_at = now(), doubted_at = NULL
WHERE g.run_id = %(run_id)s AND g.group_no = %(group_no)s AND g.status = 'OPEN'
RETURNING
    g.hand_back
    OR coalesce((SELECT n.drain_until IS NOT NULL FROM collect.node AS n WHERE n.id = g.node), false) AS draining
