-- Publishes again, as new generations, HELD tasks that may run now: the highest priority first, as many as fit under their
-- source's max_active_tasks; none that waits for a node, or for a process of a newer release; none whose host is held
-- or paused, and one alone of a host whose hold has passed, to see whether it answers: one that was tried least, so that
-- a task which fails by itself does not stand for the others. Of a source and of a host, or all, but for `spared`. Rows
-- that another pass has in hand are skipped. Index task_open. Returns them.
WITH held AS MATERIALIZED (
    SELECT
        t.id, t.source, t.attempt, t.priority, h.held_until,
        v.definition ->> 'connection' AS connection,
        (v.definition ->> 'max_active_tasks')::int AS max_active
    FROM collect.task AS t
    JOIN collect.source_version AS v ON v.hash = t.source_version
    LEFT JOIN collect.host AS h ON h.connection = v.definition ->> 'connection'
    WHERE
        t.status = 'HELD' AND t.held_for IS NULL AND v.format <= %(format)s
        AND t.id IS DISTINCT FROM %(spared)s::bigint
        AND (h.paused_until IS NULL OR h.paused_until <= now())
        AND (h.held_until IS NULL OR h.held_until <= now())
        AND (%(source)s::text IS NULL OR t.source = %(source)s OR v.definition ->> 'connection' = %(connection)s::text)
),
limited AS (
    SELECT source, max(max_active) AS most FROM held WHERE max_active IS NOT NULL GROUP BY source
),
active AS MATERIALIZED (
    -- Of the limited sources alone, and no further than to the limit: this runs with every task that ends.
    SELECT l.source, count(*) AS n
    FROM limited AS l
    CROSS JOIN LATERAL (
        SELECT 1 FROM collect.task AS o
        WHERE o.source = l.source AND o.status IN ('QUEUED', 'CLAIMED', 'DISPATCHED', 'RUNNING')
        LIMIT l.most -- noqa: AM09
    ) AS u
    GROUP BY l.source
),
ranked AS (
    SELECT
        h.id, h.attempt, h.priority, h.held_until, h.connection,
        row_number() OVER (PARTITION BY h.source ORDER BY h.priority DESC, h.id) + coalesce(a.n, 0) AS place,
        coalesce(h.max_active, 2147483647) AS room
    FROM held AS h
    LEFT JOIN active AS a ON a.source = h.source
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
