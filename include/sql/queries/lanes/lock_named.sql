-- The tasks that messages name, if the message is of the task's generation and the task waits to be claimed; locked
-- until the claim commits, so that cancel, merge and re-prioritising wait for it. Waits for nobody: a claim locks tasks
-- in the order of its queue, others in the order of their ids, and two that wait for each other are a deadlock; what
-- another has in hand is told by select_others. `small`: the source's last completed
-- task was one shard at most and took seconds, and its host has no rate limit, so it may share a run. Primary key,
-- task_source_completed.
SELECT
    t.id, t.source, t.generation, t.attempt, t.refused_nodes, t.priority, extract(EPOCH FROM now() - t.aged_from)::float8 AS waited_s, t.lane, t.status, t.retry_count,
    t.queued_at, greatest(t.queued_at, t.due_at, t.in_queue_at) AS in_queue_at,
    extract(EPOCH FROM t.due_at - now())::float8 AS due_in_s,
    v.format, v.definition -> 'placement' AS placement,
    v.definition -> 'max_active_tasks' AS max_active_tasks, v.definition ->> 'connection' AS connection,
    v.definition #>> '{limits,requests_per_s}' IS NULL
    AND (
        SELECT
            p.shards_total <= 1
            AND (p.result #>> '{seconds,fetch}')::float8 + (p.result #>> '{seconds,land}')::float8 < 5
        FROM collect.task AS p
        WHERE p.source = t.source AND p.status = 'COMPLETED'
        ORDER BY p.id DESC LIMIT 1
    ) AS small
FROM collect.task AS t
JOIN unnest(%(task_ids)s::bigint[], %(generations)s::bigint[]) AS m (task_id, generation)
    ON m.task_id = t.id AND m.generation = t.generation
JOIN collect.source_version AS v ON v.hash = t.source_version
WHERE t.status IN ('QUEUED', 'RETRYING')
ORDER BY t.id
FOR NO KEY UPDATE OF t SKIP LOCKED
