-- A shard ends with no last page to land. Primary key; only the newest token's holder.
UPDATE collect.shard
SET status = 'DONE', position = NULL, progress_at = now(), finished_at = now()
WHERE task_id = %(task_id)s AND shard_no = %(shard_no)s AND fencing_token = %(token)s AND status = 'RUNNING'
RETURNING shard_no
