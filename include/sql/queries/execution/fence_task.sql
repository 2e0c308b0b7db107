-- Fences off whoever still holds an unfinished shard of a task: nothing of it lands after this commits. Shards that a
-- next attempt shall run wait again. Primary key prefix.
UPDATE collect.shard
SET
    fencing_token = fencing_token + 1,
    status = CASE WHEN %(again)s THEN 'PENDING' ELSE status END
WHERE task_id = %(task_id)s AND status <> 'DONE'
