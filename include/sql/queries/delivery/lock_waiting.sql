-- Tasks that wait, with what their priority is made of; locked in id order until it is set. Of merged ones the survivor
-- is told (`asked_by`): its priority may be raised, not lowered. Primary key, index task_merged_into.
WITH named AS (
    SELECT t.id AS asked_by, coalesce(CASE WHEN t.status = 'MERGED' THEN t.merged_into END, t.id) AS id
    FROM collect.task AS t
    WHERE t.id = ANY(%(task_ids)s::bigint[])
)
SELECT
    t.id, n.asked_by, t.status, t.priority, t.base_priority, t.emergency, t.pinned, t.retry_count,
    extract(EPOCH FROM now() - t.aged_from)::float8 AS waited_s, v.definition -> 'priority_formula' AS formula,
    encode(v.hash, 'hex') AS version, v.format
FROM named AS n
JOIN collect.task AS t ON t.id = n.id
JOIN collect.source_version AS v ON v.hash = t.source_version
WHERE t.status IN ('QUEUED', 'HELD', 'RETRYING')
ORDER BY t.id
FOR NO KEY UPDATE OF t
