-- Gives out a shard's next fencing token, while its task is still at this attempt. The task is locked in share mode:
-- a settle, cancel or repair that is changing it is waited for and then seen. Primary keys.
WITH live AS (
    SELECT id FROM collect.task
    WHERE id = %(task_id)s AND attempt = %(attempt)s AND status IN ('DISPATCHED', 'RUNNING')
    FOR SHARE
)
UPDATE collect.shard AS s
SET
    fencing_token = s.fencing_token + 1, status = 'RUNNING', attempt = %(attempt)s, error = NULL,
    started_at = coalesce(s.started_at, now()), progress_at = now()
FROM live
WHERE s.task_id = live.id AND s.shard_no = %(shard_no)s AND s.status <> 'DONE'
RETURNING s.fencing_token, s.position, s.pages, s.rows_fetched
