-- Locks a task for settling, if the attempt is still the one under way. Until the run has dispatched it, `error` is that
-- of the attempt before. `host_held`: its host's or its endpoint's circuit is not closed; `probe`: it was not when the attempt
-- was claimed; `impatient`: that was the endpoint's alone, which has failed for longer than its patience. Primary keys.
SELECT
    t.id, t.source, t.status, t.attempt, t.generation, t.priority, t.lane, t.run_id, t.retry_count, t.lost_count,
    t.max_retries, t.total_rows, t.shards_total, t.merged_task_ids, t.withdrawn_at, t.base_priority, t.emergency,
    t.pinned, encode(v.hash, 'hex') AS version, v.format,
    coalesce(v.declared, v.definition) AS definition,
    v.definition ->> 'connection' AS connection,
    coalesce(t.own_params, t.params) AS own_params,
    CASE WHEN t.status <> 'CLAIMED' THEN t.error END AS plan_error,
    extract(EPOCH FROM now() - t.started_at)::float8 AS elapsed_s,
    -- The nodes that drain, when all that is unfinished was handed back by them in this very run.
    (
        SELECT string_agg(DISTINCT g.node, ', ')
        FROM collect.shard AS s
        LEFT JOIN collect.shard_group AS g ON g.run_id = s.run_id AND g.group_no = s.group_no
        WHERE s.task_id = t.id AND s.status NOT IN ('DONE', 'FAILED')
        HAVING bool_and(coalesce(g.handed_back AND g.run_id = t.run_id, false))
    ) AS handed_back_by,
    h.held_until IS NOT NULL OR e.held_until IS NOT NULL AS host_held,
    coalesce(h.since < t.claimed_at, false) OR coalesce(e.since < t.claimed_at, false) AS probe,
    h.held_until IS NULL
    AND coalesce(
        e.since < t.claimed_at AND e.since < now() - make_interval(secs => %(patience_s)s::float8), false
    ) AS impatient
FROM collect.task AS t
JOIN collect.source_version AS v ON v.hash = t.source_version
LEFT JOIN collect.host AS h ON h.connection = v.definition ->> 'connection'
LEFT JOIN collect.endpoint AS e ON e.connection = v.definition ->> 'connection' AND e.source = t.source
WHERE
    t.id = %(task_id)s AND t.attempt = %(attempt)s
    AND t.status IN ('CLAIMED', 'DISPATCHED', 'RUNNING')
FOR NO KEY UPDATE OF t
