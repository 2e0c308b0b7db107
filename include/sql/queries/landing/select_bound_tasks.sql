-- Tasks of a source that have not ended, by the declaration that they were admitted with. Index task_open.
SELECT
    encode(v.hash, 'hex') AS version, v.format,
    coalesce(v.declared, v.definition) AS definition,
    array_agg(t.id ORDER BY t.id) AS task_ids
FROM collect.task AS t
JOIN collect.source_version AS v ON v.hash = t.source_version
WHERE
    t.source = %(source)s
    AND t.status IN ('QUEUED', 'HELD', 'CLAIMED', 'DISPATCHED', 'RUNNING', 'RETRYING', 'DISPATCH_FAILED')
GROUP BY v.hash
