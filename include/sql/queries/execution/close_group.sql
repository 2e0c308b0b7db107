-- A shard group ends and frees its slot; one that its node has handed back says so. Primary key; safe twice.
UPDATE collect.shard_group SET status = 'CLOSED', closed_at = now(), handed_back = %(handed_back)s
WHERE run_id = %(run_id)s AND group_no = %(group_no)s AND status = 'OPEN'
