-- Which passes of the sweep have something to do: a column a pass, one row. `old_lanes`: lanes in which a task has waited
-- for a minute; its message is lost if the queue is empty, which only the broker knows. It takes no locks, and counts
-- nothing: each condition is that of the pass, or a little wider. Runs every few seconds, so each part reads an index
-- that holds what is open, not what ended: task_outbox, dead_letter_unconfirmed, dead_letter_unread, task_waiting (a range
-- for each priority), lane_progress_pkey, task_open, task_held (a probe for each version of a source that has held tasks),
-- task_dispatch_failed, host_pkey, endpoint_pkey, task_ageing, shard_group_open, task_run, redrive_open,
-- run_note_undelivered, table_event_turn_pkey.
WITH RECURSIVE lanes AS (
    SELECT l.lane, l.ttl_s FROM unnest(%(lanes)s::text[], %(ttls_s)s::double precision[]) AS l (lane, ttl_s)
),

passed AS MATERIALIZED (
    SELECT l.lane, p.priority, min(l.ttl_s) AS ttl_s, coalesce(max(c.queued_at), '-infinity') AS until
    FROM lanes AS l
    CROSS JOIN generate_series(0, 10) AS p (priority)
    LEFT JOIN collect.lane_progress AS c
        ON c.lane = l.lane AND (c.priority = p.priority OR %(strict)s AND c.priority < p.priority)
    GROUP BY l.lane, p.priority
),

-- ORDER BY and OFFSET 0 keep each of these a probe of task_waiting: else a planner that takes a minute's worth of a backlog
-- for most of it reads all of it, for every priority.
waiting AS MATERIALIZED (
    SELECT
        p.lane,
        coalesce(o.since < now() - make_interval(secs => p.ttl_s), false) AS expired,
        coalesce(o.since < now() - make_interval(secs => %(grace_s)s), false) AS old,
        s.status = 'RETRYING' AND EXISTS(
            SELECT 1 FROM (
                SELECT t.queued_at, t.due_at FROM collect.task AS t
                WHERE
                    t.lane = p.lane AND t.status = s.status AND t.status IN ('QUEUED', 'RETRYING')
                    AND t.priority = p.priority
                    AND greatest(t.queued_at, t.due_at) < now() - make_interval(secs => %(grace_s)s)
                ORDER BY greatest(t.queued_at, t.due_at)
                OFFSET 0
            ) AS r
            WHERE r.queued_at <> r.due_at
        ) AS retrying,
        EXISTS(
            SELECT 1 FROM (
                SELECT t.confirmed_generation, t.generation, t.queued_at, t.due_at, t.in_queue_at
                FROM collect.task AS t
                WHERE
                    t.lane = p.lane AND t.status = s.status AND t.status IN ('QUEUED', 'RETRYING')
                    AND t.priority = p.priority
                    AND greatest(t.queued_at, t.due_at) < least(now() - make_interval(secs => %(grace_s)s), p.until)
                ORDER BY greatest(t.queued_at, t.due_at)
                OFFSET 0
            ) AS r
            WHERE r.confirmed_generation = r.generation AND greatest(r.queued_at, r.due_at, r.in_queue_at) < p.until
        ) AS overtaken
    FROM passed AS p
    CROSS JOIN (VALUES ('QUEUED'), ('RETRYING')) AS s (status)
    LEFT JOIN LATERAL (
        SELECT greatest(t.queued_at, t.due_at) AS since FROM collect.task AS t
        WHERE
            t.lane = p.lane AND t.status = s.status AND t.status IN ('QUEUED', 'RETRYING') AND t.priority = p.priority
        ORDER BY greatest(t.queued_at, t.due_at)
        LIMIT 1
    ) AS o ON true
),

held AS (
    (
        SELECT t.source, t.source_version FROM collect.task AS t
        WHERE t.status = 'HELD' AND t.held_for IS NULL
        ORDER BY t.source, t.source_version LIMIT 1
    )
    UNION ALL
    SELECT n.source, n.source_version
    FROM held AS p
    CROSS JOIN LATERAL (
        SELECT t.source, t.source_version FROM collect.task AS t
        WHERE
            t.status = 'HELD' AND t.held_for IS NULL
            AND (t.source, t.source_version) > (p.source, p.source_version)
        ORDER BY t.source, t.source_version LIMIT 1
    ) AS n
)

SELECT
    EXISTS(
        SELECT 1 FROM (
            SELECT status FROM collect.task
            WHERE
                confirmed_generation < generation AND finished_at IS NULL
                AND queued_at < now() - make_interval(secs => %(outbox_s)s)
            ORDER BY queued_at
            OFFSET 0
        ) AS u
        WHERE u.status IN ('QUEUED', 'RETRYING')
    ) OR EXISTS(
        SELECT 1 FROM collect.dead_letter
        WHERE confirmed_at IS NULL AND failed_at < now() - make_interval(secs => %(outbox_s)s)
    ) AS outbox,
    EXISTS(SELECT 1 FROM collect.dead_letter WHERE fingerprint IS NULL) AS letters,
    (SELECT coalesce(bool_or(w.retrying), false) FROM waiting AS w) AS retrying,
    (SELECT coalesce(bool_or(w.expired OR w.overtaken), false) FROM waiting AS w) AS messages,
    (SELECT coalesce(array_agg(DISTINCT w.lane) FILTER (WHERE w.old), '{}') FROM waiting AS w) AS old_lanes,
    EXISTS(
        SELECT 1 FROM collect.task AS t
        LEFT JOIN LATERAL (
            SELECT max(progress_at) AS progress_at FROM collect.shard WHERE task_id = t.id
        ) AS s ON true
        WHERE
            t.status IN ('CLAIMED', 'DISPATCHED', 'RUNNING')
            AND greatest(t.progress_at, s.progress_at) < now() - make_interval(secs => %(quiet_s)s)
    ) AS unsettled,
    EXISTS(
        SELECT 1 FROM collect.shard_group AS g
        WHERE
            g.status = 'OPEN' AND g.opened_at < now() - make_interval(secs => %(quiet_s)s)
            AND NOT EXISTS (
                SELECT 1 FROM collect.task AS t
                WHERE t.run_id = g.run_id AND t.status IN ('CLAIMED', 'DISPATCHED', 'RUNNING')
            )
    ) AS orphans,
    EXISTS(
        SELECT 1 FROM held AS e
        JOIN collect.source_version AS v ON v.hash = e.source_version
        LEFT JOIN collect.host AS h ON h.connection = v.definition ->> 'connection'
        LEFT JOIN collect.endpoint AS n ON n.connection = v.definition ->> 'connection' AND n.source = e.source
        WHERE
            v.format <= %(format)s
            AND (h.paused_until IS NULL OR h.paused_until <= now())
            AND (h.held_until IS NULL OR h.held_until <= now())
            AND (n.held_until IS NULL OR n.held_until <= now())
            AND (
                v.definition ->> 'max_active_tasks' IS NULL
                OR (
                    SELECT count(*) FROM (
                        SELECT 1 FROM collect.task AS o
                        WHERE
                            o.source = e.source
                            AND o.status IN ('QUEUED', 'CLAIMED', 'DISPATCHED', 'RUNNING')
                        LIMIT (v.definition ->> 'max_active_tasks')::int -- noqa: AM09
                    ) AS u
                ) < (v.definition ->> 'max_active_tasks')::int
            )
    ) AS held,
    EXISTS(SELECT 1 FROM collect.task WHERE status = 'HELD' AND held_for = 'node') AS placeless,
    EXISTS(
        SELECT 1 FROM collect.task WHERE status = 'DISPATCH_FAILED' AND coalesce(due_at, now()) <= now()
    ) AS undispatched,
    EXISTS(
        SELECT 1 FROM collect.task
        WHERE
            status IN ('QUEUED', 'HELD', 'RETRYING') AND priority < 10
            AND aged_from < now() - make_interval(secs => %(ageing_s)s)
    ) AS ageing,
    EXISTS(SELECT 1 FROM collect.redrive WHERE finished_at IS NULL) AS redrives,
    EXISTS(
        SELECT 1 FROM collect.run_note
        WHERE
            delivered_at IS NULL AND written_at < now() - make_interval(secs => %(note_s)s)
            AND (next_at IS NULL OR next_at <= now())
    ) AS notes,
    EXISTS(
        SELECT 1 FROM collect.table_event AS e
        LEFT JOIN collect.table_event_turn AS t ON t.table_name = e.table_name
        WHERE (t.next_at IS NULL OR t.next_at <= now()) AND e.landed_at <= now() - make_interval(secs => %(table_s)s)
    ) AS tables
