-- Publishes again, as new generations, HELD tasks that may run now: the highest priority first, as many as fit under their
-- source's max_active_tasks; none that waits for a node, or for a process of a newer release; none whose host is held
-- or paused, and one alone of a host whose hold has passed, to see whether it answers: one that was tried least, so that
-- a task which fails by itself does not stand for the others. Of a source and of a host, or all, but for `spared`. Rows
-- that another pass has in hand are skipped. Index task_open. Returns them.
WITH active AS (
    SELECT source, count(*) AS n FROM collect.task
    WHERE status IN ('QUEUED', 'CLAIMED', 'DISPATCHED', 'RUNNING')
    GROUP BY source
),
ranked AS (
    SELECT
        t.id, t.attempt, t.priority, h.held_until,
        v.definition ->> 'connection' AS connection,
        row_number() OVER (PARTITION BY t.source ORDER BY t.priority DESC, t.id)
        + coalesce(a.n, 0) AS place,
        coalesce((v.definition ->> 'max_active_tasks')::int, 2147483647) AS room
    FROM collect.task AS t
    JOIN collect.source_version AS v ON v.hash = t.source_version
    LEFT JOIN active AS a ON a.source = t.source
    LEFT JOIN collect.host AS h ON h.connection = v.definition ->> 'connection'
    WHERE
        t.status = 'HELD' AND t.held_for IS NULL AND v.format <= %(format)s
        AND t.id IS DISTINCT FROM %(spared)s::bigint
        AND (h.paused_until IS NULL OR h.paused_until <= now())
        AND (h.held_until IS NULL OR h.held_until <= now())
        AND (%(source)s::text IS NULL OR t.source = %(source)s OR v.definition ->> 'connection' = %(connection)s::text)
),
fitting AS (
    SELECT
        r.id, r.held_until,
        row_number() OVER (PARTITION BY r.connection ORDER BY r.attempt, r.priority DESC, r.id) AS place_at_host
    FROM ranked AS r
    WHERE r.place <= r.room
),
chosen AS (
    SELECT t.id FROM collect.task AS t
    JOIN fitting AS f ON f.id = t.id
    WHERE t.status = 'HELD' AND t.held_for IS NULL AND (f.held_until IS NULL OR f.place_at_host = 1)
    FOR NO KEY UPDATE OF t SKIP LOCKED
)
UPDATE collect.task AS t
SET
    status = 'QUEUED', reason = NULL, moved_by = %(actor)s, generation = t.generation + 1, queued_at = now(),
    progress_at = now()
FROM chosen
WHERE t.id = chosen.id
RETURNING t.id, t.generation, t.priority, t.lane, t.retry_count
