-- The tasks that messages name, if the message is of the task's generation and the task waits to be claimed; locked
-- until the claim commits, so that cancel, merge and re-prioritising wait for it. Primary key.
SELECT
    t.id, t.source, t.generation, t.attempt, t.priority, t.lane, t.status, t.retry_count,
    extract(EPOCH FROM t.due_at - now())::float8 AS due_in_s,
    v.definition -> 'max_active_tasks' AS max_active_tasks
FROM collect.task AS t
JOIN unnest(%(task_ids)s::bigint[], %(generations)s::int[]) AS m (task_id, generation)
    ON m.task_id = t.id AND m.generation = t.generation
JOIN collect.source_version AS v ON v.hash = t.source_version
WHERE t.status IN ('QUEUED', 'RETRYING')
ORDER BY t.id
FOR UPDATE OF t
