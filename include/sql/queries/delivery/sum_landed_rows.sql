-- Rows that some tasks have landed, of those that have landed any. Primary key prefix.
SELECT task_id, sum(rows_landed)::bigint AS rows_landed
FROM collect.shard
WHERE task_id = ANY(%(task_ids)s::bigint[])
GROUP BY task_id
HAVING sum(rows_landed) > 0
