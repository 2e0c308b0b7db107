-- Shards that are not DONE wait again, and whoever still holds one is fenced off. Each may begin anew once more, should its
-- cursor have expired meanwhile. The caller holds the tasks' locks.
-- Primary key prefix.
UPDATE collect.shard
SET fencing_token = fencing_token + 1, status = 'PENDING', restarts = 0
WHERE task_id = ANY(%(task_ids)s::bigint[]) AND status <> 'DONE'
