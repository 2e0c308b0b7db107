-- Fences off whoever holds an unfinished shard of these tasks: what is landing now is waited for, and nothing lands
-- after this commits. The caller holds the tasks' locks. Primary key prefix.
UPDATE collect.shard
SET fencing_token = fencing_token + 1
WHERE task_id = ANY(%(task_ids)s::bigint[]) AND status <> 'DONE'
