-- Begins every landing transaction: locks the shard and demands that the token is still its newest and that it is not
-- DONE. No row: the caller has been fenced off and must not land. Primary key.
UPDATE collect.shard
SET progress_at = now()
WHERE
    task_id = %(task_id)s AND shard_no = %(shard_no)s
    AND fencing_token = %(token)s AND status = 'RUNNING'
RETURNING pages
