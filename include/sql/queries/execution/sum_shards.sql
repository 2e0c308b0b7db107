-- What the shards of a task have come to. Primary key prefix.
WITH present AS (
    SELECT run_id AS current_run FROM collect.task WHERE id = %(task_id)s
)
SELECT
    count(*) AS shards,
    count(*) FILTER (WHERE status = 'DONE') AS done,
    count(*) FILTER (WHERE status = 'FAILED') AS failed,
    count(*) FILTER (WHERE status = 'FAILED' AND NOT coalesce((error ->> 'transient')::boolean, false)) AS permanent,
    count(DISTINCT error ->> 'class') FILTER (
        WHERE status = 'FAILED' AND NOT coalesce((error ->> 'transient')::boolean, false)
    ) AS permanent_kinds,
    count(params) = 0 AS by_page,
    count(*) FILTER (WHERE status = 'FAILED' AND error ->> 'host_fault' = 'down') AS host_down,
    count(*) FILTER (WHERE status = 'FAILED' AND error ->> 'host_fault' = 'sick') AS host_sick,
    (array_agg(error ->> 'message') FILTER (WHERE status = 'PENDING' AND (error ->> 'deferred')::boolean))[1] AS deferred,
    (array_agg(error ->> 'message') FILTER (WHERE status = 'PENDING' AND (error ->> 'probed')::boolean))[1] AS probed,
    -- Of this run: what an earlier attempt met is no reason not to count that this one was lost.
    (array_agg(error ->> 'message') FILTER (
        WHERE status = 'PENDING' AND (error ->> 'outage')::boolean AND run_id = current_run
    ))[1] AS outage,
    max((error ->> 'retry_after_s')::float8) FILTER (WHERE status = 'FAILED') AS retry_after_s,
    coalesce(sum(rows_fetched), 0)::bigint AS rows_fetched,
    coalesce(sum(rows_landed), 0)::bigint AS rows_landed,
    coalesce(sum(bad_rows), 0)::bigint AS bad_rows,
    coalesce(sum(rows_repeated), 0)::bigint AS rows_repeated,
    coalesce(sum(bytes), 0)::bigint AS bytes,
    coalesce(sum(pages), 0)::bigint AS pages,
    coalesce(sum(unchanged_pages), 0)::bigint AS unchanged_pages,
    coalesce(sum(unchanged_rows), 0)::bigint AS unchanged_rows,
    coalesce(sum(http_retries), 0)::bigint AS http_retries,
    coalesce(sum(restarts), 0)::bigint AS restarts,
    -- Whether every shard goes on until the source says that there is no more.
    coalesce(bool_and(span_size IS NULL), false) AS streams,
    coalesce(sum(fetch_s), 0)::float8 AS fetch_s,
    coalesce(sum(land_s), 0)::float8 AS land_s,
    -- Shards with parameters of their own are asked for one by one, and each answer's total is its shard's.
    CASE
        WHEN count(params) = 0 THEN max(source_total)
        WHEN count(source_total) > 0 THEN sum(coalesce(source_total, rows_fetched))::bigint
    END AS source_total,
    (array_agg(
        jsonb_build_object('shard', shard_no, 'named', source_total, 'fetched', rows_fetched) ORDER BY shard_no
    ) FILTER (WHERE params IS NOT NULL AND status = 'DONE' AND source_total > rows_fetched))[1] AS mismatch,
    (array_agg(error ORDER BY shard_no) FILTER (WHERE status = 'FAILED'))[1] AS first_error,
    (array_agg(shard_no ORDER BY shard_no) FILTER (WHERE status = 'FAILED'))[1] AS first_failed
FROM collect.shard
CROSS JOIN present
WHERE task_id = %(task_id)s
