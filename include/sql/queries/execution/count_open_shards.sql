-- Shards of a task that are not final. Primary key prefix.
SELECT count(*) AS open FROM collect.shard
WHERE task_id = %(task_id)s AND status NOT IN ('DONE', 'FAILED')
