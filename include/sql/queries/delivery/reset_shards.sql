-- Shards that are not DONE wait again, and whoever still holds one is fenced off. The caller holds the tasks' locks.
-- Primary key prefix.
UPDATE collect.shard
SET fencing_token = fencing_token + 1, status = 'PENDING'
WHERE task_id = ANY(%(task_ids)s::bigint[]) AND status <> 'DONE'
