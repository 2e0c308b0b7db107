-- How far a task is. Primary keys of task and shard.
SELECT
    p.*,
    u.unchanged_pages,
    u.unchanged_rows,
    extract(EPOCH FROM coalesce(p.finished_at, now()) - p.started_at)::float8 AS elapsed_s,
    extract(EPOCH FROM now() - p.progress_at)::float8 AS quiet_s
FROM collect.task_progress AS p
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(s.unchanged_pages), 0)::bigint AS unchanged_pages,
        coalesce(sum(s.unchanged_rows), 0)::bigint AS unchanged_rows
    FROM collect.shard AS s
    WHERE s.task_id = p.id
) AS u
WHERE p.id = %(task_id)s
