-- The tasks of some dead letters, locked in id order: tasks before their letters, as deleting a task does. Primary keys.
SELECT
    t.id, t.source, t.status, t.attempt, t.dedup_key, t.merged_into, t.generation, t.params, t.path, t.priority,
    t.merged_task_ids, encode(t.source_version, 'hex') AS version,
    (v.definition #>> '{dedup,ttl_h}')::float8 * 3600 AS dedup_ttl_s,
    v.definition #>> '{dedup,while}' AS dedup_while
FROM collect.task AS t
JOIN collect.source_version AS v ON v.hash = t.source_version
WHERE t.id IN (SELECT d.task_id FROM collect.dead_letter AS d WHERE d.id = ANY(%(ids)s::bigint[]))
ORDER BY t.id
FOR NO KEY UPDATE OF t
