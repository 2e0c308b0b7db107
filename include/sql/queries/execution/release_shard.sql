-- A shard is put back: its host or endpoint is held, or its node drains. It goes on from its last committed page. Primary
-- key; only the newest token's holder.
UPDATE collect.shard
SET status = 'PENDING', error = %(error)s, progress_at = now()
WHERE task_id = %(task_id)s AND shard_no = %(shard_no)s AND fencing_token = %(token)s AND status = 'RUNNING'
RETURNING shard_no
