-- Tasks that died with their survivors, locked in id order. The caller holds the survivors' locks, without which nobody
-- moves them. Index task_merged_into.
SELECT
    t.id, t.dedup_key, (v.definition #>> '{dedup,ttl_h}')::float8 * 3600 AS dedup_ttl_s,
    v.definition #>> '{dedup,while}' AS dedup_while
FROM collect.task AS t
JOIN collect.source_version AS v ON v.hash = t.source_version
WHERE t.merged_into = ANY(%(task_ids)s::bigint[]) AND t.status = 'DEAD'
ORDER BY t.id
FOR NO KEY UPDATE OF t
