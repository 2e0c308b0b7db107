-- Merge keys under which more than one task waits, with the declaration that they were admitted with (equal ones have
-- equal keys), but for those that only a newer release can read. Locks nothing. Index task_mergeable.
SELECT w.merge_key, encode(v.hash, 'hex') AS version, v.format,
    coalesce(v.declared, v.definition) AS definition
FROM (
    SELECT merge_key, min(id) AS first_id
    FROM collect.task
    WHERE merge_key IS NOT NULL AND status IN ('QUEUED', 'HELD') AND attempt = 0
    GROUP BY merge_key
    HAVING count(*) > 1
    ORDER BY merge_key
    LIMIT 1000
) AS w
JOIN collect.task AS t ON t.id = w.first_id
JOIN collect.source_version AS v ON v.hash = t.source_version
WHERE v.format <= %(format)s
