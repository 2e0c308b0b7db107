-- Publishes again, as new generations, HELD tasks that may run now: the highest priority first, as many as fit under their
-- source's max_active_tasks; none that waits for a node; none whose host is held, and one alone of a host whose hold has passed, to see whether it
-- answers. Rows that another pass has in hand are skipped. Index task_open. Returns them.
WITH active AS (
    SELECT source, count(*) AS n FROM collect.task
    WHERE status IN ('QUEUED', 'CLAIMED', 'DISPATCHED', 'RUNNING')
    GROUP BY source
),
ranked AS (
    SELECT
        t.id,
        row_number() OVER (PARTITION BY t.source ORDER BY t.priority DESC, t.id)
        + coalesce(a.n, 0) AS place,
        coalesce((v.definition ->> 'max_active_tasks')::int, 2147483647) AS room,
        row_number() OVER (PARTITION BY v.definition ->> 'connection' ORDER BY t.priority DESC, t.id) AS place_at_host,
        h.held_until
    FROM collect.task AS t
    JOIN collect.source_version AS v ON v.hash = t.source_version
    LEFT JOIN active AS a ON a.source = t.source
    LEFT JOIN collect.host AS h ON h.connection = v.definition ->> 'connection'
    WHERE t.status = 'HELD' AND t.held_for IS NULL AND (%(source)s::text IS NULL OR t.source = %(source)s)
),
chosen AS (
    SELECT t.id FROM collect.task AS t
    JOIN ranked AS r ON r.id = t.id AND r.place <= r.room
    WHERE t.status = 'HELD' AND t.held_for IS NULL AND (r.held_until IS NULL OR r.held_until <= now() AND r.place_at_host = 1)
    FOR NO KEY UPDATE OF t SKIP LOCKED
)
UPDATE collect.task AS t
SET
    status = 'QUEUED', reason = NULL, moved_by = %(actor)s, generation = t.generation + 1, queued_at = now(),
    progress_at = now()
FROM chosen
WHERE t.id = chosen.id
RETURNING t.id, t.generation, t.priority, t.lane, t.retry_count
