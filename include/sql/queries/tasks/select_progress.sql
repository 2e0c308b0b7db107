-- How far a task is, and what becomes of the rows of a replacement. Primary keys of task, shard and source_version.
SELECT
    p.*,
    t.result ->> 'swap' AS swap,
    (t.result ->> 'repeated_rows')::bigint AS repeated_rows,
    coalesce(jsonb_typeof(t.result -> 'repeated_rows') = 'null', false) AS repeated_unknown,
    coalesce(v.definition #>> '{target,disposition}' = 'replace', false) AS replaces,
    u.unchanged_pages,
    u.unchanged_rows,
    extract(EPOCH FROM coalesce(p.finished_at, now()) - p.started_at)::float8 AS elapsed_s,
    extract(EPOCH FROM now() - p.progress_at)::float8 AS quiet_s
FROM collect.task_progress AS p
JOIN collect.task AS t ON t.id = p.id
JOIN collect.source_version AS v ON v.hash = t.source_version
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(s.unchanged_pages), 0)::bigint AS unchanged_pages,
        coalesce(sum(s.unchanged_rows), 0)::bigint AS unchanged_rows
    FROM collect.shard AS s
    WHERE s.task_id = p.id
) AS u
WHERE p.id = %(task_id)s
