-- Deletes shard groups that were closed long ago and of whose run no task and no shard is left. Goes through them in the
-- order in which they were closed, some at a time; returns how far it has come (NULL: through) and how many went. With
-- `dry` none goes. Indexes shard_group_closed, task_run, shard_by_group. Two at once delete each row once.
WITH looked_at AS (
    SELECT
        g.run_id, g.group_no, g.closed_at,
        NOT EXISTS (SELECT FROM collect.task AS t WHERE t.run_id = g.run_id)
        AND NOT EXISTS (SELECT FROM collect.shard AS s WHERE s.run_id = g.run_id) AS orphaned
    FROM collect.shard_group AS g
    WHERE
        g.status = 'CLOSED' AND g.closed_at < now() - make_interval(secs => %(keep_s)s)
        AND (g.closed_at, g.run_id, g.group_no)
        > (%(after_at)s::timestamptz, %(after_run)s::text, %(after_no)s::integer)
    ORDER BY g.closed_at, g.run_id, g.group_no
    LIMIT %(most)s
),
deleted AS (
    DELETE FROM collect.shard_group AS g
    USING looked_at AS l
    WHERE g.run_id = l.run_id AND g.group_no = l.group_no AND l.orphaned AND g.status = 'CLOSED' AND NOT %(dry)s
    RETURNING 1
),
last_one AS (
    SELECT closed_at, run_id, group_no FROM looked_at ORDER BY closed_at DESC, run_id DESC, group_no DESC LIMIT 1
)
SELECT
    (SELECT count(*) FROM looked_at) AS looked_at,
    (SELECT CASE WHEN %(dry)s THEN count(*) FILTER (WHERE orphaned) END FROM looked_at) AS would_go,
    (SELECT count(*) FROM deleted) AS deleted,
    (SELECT closed_at FROM last_one) AS after_at,
    (SELECT run_id FROM last_one) AS after_run,
    (SELECT group_no FROM last_one) AS after_no
