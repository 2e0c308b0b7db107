-- Drops a task's shards, of which nothing has landed: its request is another one now. The caller holds the task's lock.
-- Primary key prefix.
DELETE FROM collect.shard
WHERE task_id = %(task_id)s AND status <> 'DONE' AND pages = 0 AND rows_landed = 0 AND rows_fetched = 0
