-- Tasks that hold these dedup keys; with live_only those that refuse others now: not expired, not ended in a way that
-- frees the key. Primary keys of both.
SELECT d.key, d.task_id, t.status, t.priority, t.lane, t.params, t.source_version
FROM collect.dedup AS d
JOIN collect.task AS t ON t.id = d.task_id
WHERE
    d.key = ANY(%(keys)s::bytea[])
    AND (
        NOT %(live_only)s
        OR t.status NOT IN ('COMPLETED', 'PARTIAL', 'DEAD', 'CANCELLED')
        OR (d.expires_at > now() AND t.status NOT IN ('DEAD', 'CANCELLED'))
    )
