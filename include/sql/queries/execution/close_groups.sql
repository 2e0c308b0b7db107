-- A run is over: its groups free their slots. Primary key prefix; safe twice.
UPDATE collect.shard_group SET status = 'CLOSED', closed_at = now()
WHERE run_id = %(run_id)s AND status = 'OPEN'
