-- What has landed of a task's present request. Primary key prefix.
SELECT
    count(*) AS shards,
    coalesce(sum(rows_landed), 0)::bigint AS rows_landed,
    count(*) FILTER (WHERE status = 'DONE' OR pages > 0 OR rows_landed > 0 OR rows_fetched > 0) AS begun
FROM collect.shard
WHERE task_id = %(task_id)s
