-- A shard has failed at this token; a newer token's holder is not touched. Primary key.
UPDATE collect.shard
SET status = 'FAILED', error = %(error)s, progress_at = now(), finished_at = now()
WHERE task_id = %(task_id)s AND shard_no = %(shard_no)s AND fencing_token = %(token)s AND status = 'RUNNING'
RETURNING shard_no
