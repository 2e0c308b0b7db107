-- A shard group ends and frees its slot. Primary key; safe twice.
UPDATE collect.shard_group SET status = 'CLOSED', closed_at = now()
WHERE run_id = %(run_id)s AND group_no = %(group_no)s AND status = 'OPEN'
