-- How far a task is. Primary keys of task and shard.
SELECT
    p.*,
    extract(EPOCH FROM coalesce(p.finished_at, now()) - p.started_at)::float8 AS elapsed_s,
    extract(EPOCH FROM now() - p.progress_at)::float8 AS quiet_s
FROM collect.task_progress AS p
WHERE p.id = %(task_id)s
