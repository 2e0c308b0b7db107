-- Whose a shard is. Primary key.
SELECT run_id, group_no FROM collect.shard
WHERE task_id = %(task_id)s AND shard_no = %(shard_no)s
