-- A task with what tells what it waits for, and how many tasks of its lane stand before it: more urgent ones, and of the
-- same priority those that were published before; of a held one, which of its endpoint is released first (`held_before`).
-- Primary key, indexes task_open, task_held.
SELECT
    t.id, t.source, t.status, t.reason, t.priority, t.lane, t.attempt, t.run_id, t.dag_id, t.retry_count, t.max_retries,
    t.merged_into, t.merged_task_ids, t.withdrawn_at, t.moved_by, t.generation, t.confirmed_generation, t.lost_count,
    t.nodes, t.held_for, t.refused_nodes, extract(EPOCH FROM now() - t.aged_from)::float8 AS waited_s, v.definition -> 'placement' AS placement,
    (
        SELECT r.response FROM collect.trace AS r
        WHERE r.task_id = t.id AND r.stage = 'place' AND r.attempt = t.attempt
        ORDER BY r.id DESC LIMIT 1
    ) AS placed,
    extract(EPOCH FROM now() - t.queued_at)::float8 AS queued_s,
    extract(EPOCH FROM t.due_at - now())::float8 AS due_in_s,
    extract(EPOCH FROM now() - t.claimed_at)::float8 AS claimed_s,
    extract(EPOCH FROM now() - p.progress_at)::float8 AS quiet_s,
    t.error ->> 'message' AS error,
    p.rows_fetched, p.total_rows, p.shards_done, p.shards_total,
    v.format,
    (v.definition ->> 'max_active_tasks')::int AS max_active_tasks,
    v.definition ->> 'connection' AS connection,
    h.last_error AS host_error,
    extract(EPOCH FROM h.held_until - now())::float8 AS host_held_s,
    h.probing AS host_probing,
    extract(EPOCH FROM h.paused_until - now())::float8 AS host_paused_s,
    h.pause_reason AS host_pause_reason,
    n.last_error AS endpoint_error,
    extract(EPOCH FROM n.held_until - now())::float8 AS endpoint_held_s,
    n.probing AS endpoint_probing,
    extract(EPOCH FROM now() - n.since)::float8 AS endpoint_failing_s,
    (
        SELECT o.id FROM collect.task AS o
        JOIN collect.source_version AS w ON w.hash = o.source_version
        WHERE
            o.source = t.source AND o.status = 'HELD' AND o.held_for IS NULL AND t.status = 'HELD'
            AND w.definition ->> 'connection' = v.definition ->> 'connection' AND w.format <= v.format
            AND (o.priority > t.priority OR o.priority = t.priority AND o.id < t.id)
        ORDER BY o.priority DESC, o.id LIMIT 1
    ) AS held_before,
    to_char(h.paused_until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS host_paused_until,
    (
        SELECT count(*) FROM collect.task AS o
        WHERE
            o.lane = t.lane
            AND (o.status = 'QUEUED' OR o.status = 'RETRYING' AND coalesce(o.due_at, now()) <= now())
            AND (o.priority > t.priority OR o.priority = t.priority AND (o.queued_at, o.id) < (t.queued_at, t.id))
    ) AS ahead,
    (
        SELECT count(*) FROM collect.task AS o
        WHERE o.source = t.source AND o.status IN ('QUEUED', 'CLAIMED', 'DISPATCHED', 'RUNNING')
    ) AS active,
    (SELECT max(d.id) FROM collect.dead_letter AS d WHERE d.task_id = t.id) AS dead_letter_id
FROM collect.task AS t
JOIN collect.source_version AS v ON v.hash = t.source_version
JOIN collect.task_progress AS p ON p.id = t.id
LEFT JOIN collect.host AS h ON h.connection = v.definition ->> 'connection'
LEFT JOIN collect.endpoint AS n ON n.connection = v.definition ->> 'connection' AND n.source = t.source
WHERE t.id = %(task_id)s
