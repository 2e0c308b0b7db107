-- A shard group starts; a closed one does not start again. Primary key.
UPDATE collect.shard_group
SET node = %(node)s, pid = %(pid)s, started_at = coalesce(started_at, now())
WHERE run_id = %(run_id)s AND group_no = %(group_no)s AND status = 'OPEN'
RETURNING lane, label, concurrency, requests_per_s
