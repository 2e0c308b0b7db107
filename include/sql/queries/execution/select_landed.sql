-- What an attempt that is under way has landed, and by which declaration: for counting what it fetched twice before
-- settling locks the task. Nothing changes meanwhile once `final` is true: no shard of it can land. Primary keys.
SELECT
    encode(v.hash, 'hex') AS version, v.format,
    coalesce(v.declared, v.definition) AS definition,
    s.final, s.rows_landed
FROM collect.task AS t
JOIN collect.source_version AS v ON v.hash = t.source_version
CROSS JOIN LATERAL (
    SELECT
        coalesce(bool_and(status IN ('DONE', 'FAILED')), false) AS final,
        coalesce(sum(rows_landed), 0)::bigint AS rows_landed
    FROM collect.shard
    WHERE task_id = t.id
) AS s
WHERE t.id = %(task_id)s AND t.attempt = %(attempt)s AND t.status IN ('CLAIMED', 'DISPATCHED', 'RUNNING')
