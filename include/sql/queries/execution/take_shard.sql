-- Gives out a shard's next fencing token, while its task is still at this attempt and the shard is still this group's:
-- one that another group is taking over at this moment is waited for and then seen. The task is locked in share mode:
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
    -- Not indexable on purpose: of a large group's many shards this one is found by its key.
    AND s.run_id IS NOT DISTINCT FROM %(run_id)s AND s.group_no IS NOT DISTINCT FROM %(group_no)s
RETURNING s.fencing_token, s.position, s.pages, s.rows_fetched, s.restarts, s.landed_since
