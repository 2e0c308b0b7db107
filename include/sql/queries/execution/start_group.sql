-- A shard group starts; a closed one does not start again. Primary key. `others`: whether its run has other groups open.
UPDATE collect.shard_group AS g
SET node = %(node)s, pid = %(pid)s, started_at = coalesce(g.started_at, now())
WHERE g.run_id = %(run_id)s AND g.group_no = %(group_no)s AND g.status = 'OPEN'
RETURNING
    g.lane, g.label, g.concurrency, g.requests_per_s,
    EXISTS (
        SELECT FROM collect.shard_group AS o
        WHERE o.run_id = g.run_id AND o.group_no <> g.group_no AND o.status = 'OPEN'
    ) AS others
