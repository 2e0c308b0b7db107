-- Tasks under way whose last sign of life is old, with what the repair needs to decide. Index task_open.
SELECT
    t.id, t.status, t.attempt, t.priority, t.lane, t.dag_id, t.run_id, t.shards_total,
    extract(EPOCH FROM now() - greatest(t.progress_at, s.progress_at))::float8 AS stalled_s,
    -- Of a shared run: a task that waits for its turn is as alive as the one before it. Indexes task_run, shard_by_group.
    extract(EPOCH FROM now() - greatest(
        t.progress_at,
        (SELECT max(p.progress_at) FROM collect.task AS p WHERE p.run_id = t.run_id),
        (SELECT max(h.progress_at) FROM collect.shard AS h WHERE h.run_id = t.run_id)
    ))::float8 AS run_stalled_s,
    coalesce(s.open, 0) AS open_shards
FROM collect.task AS t
LEFT JOIN LATERAL (
    SELECT
        max(progress_at) AS progress_at,
        count(*) FILTER (WHERE status NOT IN ('DONE', 'FAILED')) AS open
    FROM collect.shard WHERE task_id = t.id
) AS s ON true
WHERE
    t.status IN ('CLAIMED', 'DISPATCHED', 'RUNNING')
    AND greatest(t.progress_at, s.progress_at) < now() - make_interval(secs => %(older_than_s)s)
ORDER BY t.id
