-- What a list says of some dead letters, newest first; `merged` are the tasks that died with this one. Primary keys.
SELECT
    d.id, d.state, d.state_at, d.state_by, d.state_reason, d.task_id, d.source, d.error_class, d.error_message,
    d.fingerprint, d.failed_at, d.retry_count, d.body_bytes, t.status AS task_status, t.params, t.path, t.priority,
    coalesce(cardinality(t.merged_task_ids), 0) AS merged
FROM collect.dead_letter AS d
LEFT JOIN collect.task AS t ON t.id = d.task_id
WHERE d.id = ANY(%(ids)s::bigint[])
ORDER BY d.id DESC
