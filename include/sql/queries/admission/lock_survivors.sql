-- Survivors that still wait and were never claimed, with what their own callers ask for. Those that only a newer release
-- can read are left as they are. Locked in id order; the caller holds them already, or waits for nobody. Primary key.
SELECT
    t.id, t.params, t.withdrawn_at IS NOT NULL AS withdrawn, coalesce(t.own_params, t.params) AS own_params,
    encode(v.hash, 'hex') AS version, v.format,
    coalesce(v.declared, v.definition) AS definition
FROM collect.task AS t
JOIN collect.source_version AS v ON v.hash = t.source_version
WHERE t.id = ANY(%(task_ids)s::bigint[]) AND t.status IN ('QUEUED', 'HELD') AND t.attempt = 0
    AND v.format <= %(format)s
ORDER BY t.id
FOR NO KEY UPDATE OF t SKIP LOCKED
