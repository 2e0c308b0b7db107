-- Shards of a task that are not final, and what tells whether it is worth waiting for them: those that have failed for
-- good, and those that were answered. Primary key prefix.
SELECT
    count(*) FILTER (WHERE status NOT IN ('DONE', 'FAILED')) AS open,
    count(*) FILTER (WHERE status = 'FAILED' AND NOT coalesce((error ->> 'transient')::boolean, false)) AS permanent,
    count(*) FILTER (WHERE status = 'DONE' OR rows_fetched > 0) AS answered
FROM collect.shard
WHERE task_id = %(task_id)s
