-- Tasks that have waited long enough to have aged, with what their priority is made of: the longest waiting first, those
-- that are as urgent as can be left out. What somebody else has in hand is skipped: the next pass looks again. Index
-- task_ageing.
SELECT
    t.id, t.id AS asked_by, t.status, t.priority, t.base_priority, t.emergency, t.pinned, t.retry_count,
    extract(EPOCH FROM now() - t.aged_from)::float8 AS waited_s, v.definition -> 'priority_formula' AS formula,
    encode(v.hash, 'hex') AS version, v.format
FROM collect.task AS t
JOIN collect.source_version AS v ON v.hash = t.source_version
WHERE
    t.status IN ('QUEUED', 'HELD', 'RETRYING')
    AND t.aged_from < now() - make_interval(secs => %(older_than_s)s)
    AND t.priority < 10
    AND v.format <= %(format)s
ORDER BY t.aged_from, t.id
LIMIT %(limit)s
FOR NO KEY UPDATE OF t SKIP LOCKED
