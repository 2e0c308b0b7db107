-- Gives shards to the groups of a run. What is said of them is of the attempt before. Primary key.
UPDATE collect.shard AS s
SET run_id = %(run_id)s, group_no = a.group_no, status = 'PENDING', error = NULL
FROM unnest(%(shard_nos)s::int[], %(group_nos)s::int[]) AS a (shard_no, group_no)
WHERE s.task_id = %(task_id)s AND s.shard_no = a.shard_no AND s.status <> 'DONE'
