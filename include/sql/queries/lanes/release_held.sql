-- Publishes again, as new generations, HELD tasks that may run now: the highest priority first, of equal ones the oldest, as
-- many of a source as fit under its max_active_tasks, and `at_once` at most: what ends releases the next ones. None that
-- waits for a node, or for a process of a newer release; none whose host is paused, or whose host's or endpoint's circuit is
-- open. Of a host, or else an endpoint, whose hold has passed one alone, to see whether it answers: one that was tried
-- least, so that a task which fails by itself does not stand for the others; once an endpoint's patience is over the first
-- in order, which ends with it. Of a source and of a host, or all, but for `spared`. Rows that another pass has in hand are
-- skipped. Index task_held: a probe for each version of a source that has held tasks, and what is released. Returns them.
WITH RECURSIVE versions AS (
    (
        SELECT t.source, t.source_version FROM collect.task AS t
        WHERE t.status = 'HELD' AND t.held_for IS NULL
        ORDER BY t.source, t.source_version LIMIT 1
    )
    UNION ALL
    SELECT n.source, n.source_version
    FROM versions AS p
    CROSS JOIN LATERAL (
        SELECT t.source, t.source_version FROM collect.task AS t
        WHERE
            t.status = 'HELD' AND t.held_for IS NULL
            AND (t.source, t.source_version) > (p.source, p.source_version)
        ORDER BY t.source, t.source_version LIMIT 1
    ) AS n
),
held AS MATERIALIZED (
    SELECT
        p.source, p.source_version, v.definition ->> 'connection' AS connection,
        (v.definition ->> 'max_active_tasks')::int AS max_active,
        h.held_until IS NOT NULL AS host_tried,
        h.held_until IS NOT NULL OR e.held_until IS NOT NULL AS tried,
        h.held_until IS NULL AND e.since < now() - make_interval(secs => %(patience_s)s::float8) AS impatient
    FROM versions AS p
    JOIN collect.source_version AS v ON v.hash = p.source_version
    LEFT JOIN collect.host AS h ON h.connection = v.definition ->> 'connection'
    LEFT JOIN collect.endpoint AS e ON e.connection = v.definition ->> 'connection' AND e.source = p.source
    WHERE
        v.format <= %(format)s
        AND (h.paused_until IS NULL OR h.paused_until <= now())
        AND (h.held_until IS NULL OR h.held_until <= now())
        AND (e.held_until IS NULL OR e.held_until <= now())
        AND (%(source)s::text IS NULL OR p.source = %(source)s OR v.definition ->> 'connection' = %(connection)s::text)
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
first AS (
    SELECT h.source, h.max_active, t.id, t.priority
    FROM held AS h
    CROSS JOIN LATERAL (
        SELECT t.id, t.priority FROM collect.task AS t
        WHERE
            t.status = 'HELD' AND t.held_for IS NULL AND t.source = h.source AND t.source_version = h.source_version
            AND t.id IS DISTINCT FROM %(spared)s::bigint
        ORDER BY t.priority DESC, t.id
        LIMIT least(h.max_active, %(at_once)s::int) -- noqa: AM09
    ) AS t
    WHERE NOT h.tried
),
ranked AS (
    SELECT
        f.id,
        row_number() OVER (PARTITION BY f.source ORDER BY f.priority DESC, f.id) AS place,
        f.max_active - coalesce(a.n, 0) AS room
    FROM first AS f
    LEFT JOIN active AS a ON a.source = f.source
),
probes AS (
    SELECT
        t.id,
        row_number() OVER (
            PARTITION BY h.connection, CASE WHEN NOT h.host_tried THEN h.source END
            ORDER BY t.tries, t.priority DESC, t.id
        ) AS place
    FROM held AS h
    LEFT JOIN active AS a ON a.source = h.source
    CROSS JOIN LATERAL (
        SELECT t.id, t.priority, CASE WHEN h.impatient THEN 0 ELSE t.attempt END AS tries FROM collect.task AS t
        WHERE
            t.status = 'HELD' AND t.held_for IS NULL AND t.source = h.source AND t.source_version = h.source_version
            AND t.id IS DISTINCT FROM %(spared)s::bigint
        ORDER BY CASE WHEN h.impatient THEN 0 ELSE t.attempt END, t.priority DESC, t.id
        LIMIT 1
    ) AS t
    WHERE h.tried AND (h.max_active IS NULL OR coalesce(a.n, 0) < h.max_active)
),
fitting AS (
    SELECT r.id FROM ranked AS r WHERE r.place <= least(r.room, %(at_once)s::int)
    UNION ALL
    SELECT p.id FROM probes AS p WHERE p.place = 1
),
chosen AS (
    SELECT t.id FROM collect.task AS t
    JOIN fitting AS f ON f.id = t.id
    WHERE t.status = 'HELD' AND t.held_for IS NULL
    FOR NO KEY UPDATE OF t SKIP LOCKED
)
UPDATE collect.task AS t
SET
    status = 'QUEUED', reason = NULL, moved_by = %(actor)s, generation = t.generation + 1, queued_at = now(),
    progress_at = now()
FROM chosen
WHERE t.id = chosen.id
RETURNING t.id, t.generation, t.priority, t.lane, t.retry_count
