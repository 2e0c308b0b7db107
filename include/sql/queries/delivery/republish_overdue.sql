-- Waiting tasks whose message must be gone: published again as their next generation, returned in the order in which they
-- were published before.
-- * RETRYING a minute past due, once: on its way up and down the ladder a message can be lost. `queued_at` equal to
--   `due_at` says that this statement has published it since it was due.
-- * Waiting longer than the lane's message TTL.
-- * Waiting for a minute while the lane's queue is empty, unacked included.
-- * Waiting for a minute while one of no higher priority was claimed that was published later: the queue would have
--   delivered this one before it. `in_queue_at` says until when it is known to have been there; what a claim gave back
--   and passed over is. A queue that is not `strict` (quorum queues know two priorities) is in order within a priority.
-- A task that merely waits behind a backlog is none of these: a new message would be at the end of its queue.
-- Rows that another has in hand are skipped. Indexes task_waiting (a range for each priority, empty when nothing is
-- overdue, however much waits), lane_progress_pkey, task_pkey. Safe twice: the second pass finds queued_at and due_at moved.
WITH claimed AS MATERIALIZED (
    SELECT priority, queued_at FROM collect.lane_progress WHERE lane = %(lane)s
),
passed AS (
    SELECT p.priority, coalesce(max(c.queued_at), '-infinity') AS until
    FROM generate_series(0, 10) AS p (priority)
    LEFT JOIN claimed AS c ON c.priority = p.priority OR %(strict)s AND c.priority < p.priority
    GROUP BY p.priority
),
bounds AS MATERIALIZED (
    SELECT
        s.status, passed.priority, passed.until AS passed_until,
        greatest(
            now() - make_interval(secs => %(ttl_s)s),
            CASE
                WHEN s.status = 'RETRYING' OR %(queue_empty)s THEN now() - make_interval(secs => %(grace_s)s)
                ELSE least(now() - make_interval(secs => %(grace_s)s), passed.until)
            END
        ) AS until
    FROM passed
    CROSS JOIN (VALUES ('QUEUED'), ('RETRYING')) AS s (status)
),
due AS (
    SELECT b.passed_until, w.id
    FROM bounds AS b
    -- OFFSET 0 keeps this a probe of the index for each row of bounds: as a join everything that waits would be read.
    CROSS JOIN LATERAL (
        SELECT id FROM collect.task
        WHERE
            lane = %(lane)s AND status = b.status AND status IN ('QUEUED', 'RETRYING') AND priority = b.priority
            AND greatest(queued_at, due_at) < b.until
        ORDER BY greatest(queued_at, due_at)
        OFFSET 0
    ) AS w
),
overdue AS (
    SELECT t.id, greatest(t.queued_at, t.due_at) AS since
    FROM due AS d
    JOIN collect.task AS t ON t.id = d.id
    WHERE
        t.status = 'RETRYING' AND t.queued_at <> t.due_at
        AND greatest(t.queued_at, t.due_at) < now() - make_interval(secs => %(grace_s)s)
        OR t.status IN ('QUEUED', 'RETRYING') AND (
            greatest(t.queued_at, t.due_at) < now() - make_interval(secs => %(ttl_s)s)
            OR greatest(t.queued_at, t.due_at) < now() - make_interval(secs => %(grace_s)s)
            AND (
                %(queue_empty)s
                OR t.confirmed_generation = t.generation
                AND greatest(t.queued_at, t.due_at, t.in_queue_at) < d.passed_until
            )
        )
    ORDER BY t.id
    FOR NO KEY UPDATE OF t SKIP LOCKED
),
published AS (
    UPDATE collect.task AS t
    SET
        generation = t.generation + 1, queued_at = now(), moved_by = %(actor)s, progress_at = now(),
        due_at = CASE WHEN t.status = 'RETRYING' THEN now() END
    FROM overdue AS o
    WHERE t.id = o.id
    RETURNING t.id, t.generation, t.priority, t.lane, t.retry_count, o.since
)
SELECT id, generation, priority, lane, retry_count FROM published
ORDER BY priority DESC, since, id
