-- Dead letters that collect.dead has not confirmed. Index dead_letter_unconfirmed.
SELECT
    d.id, d.task_id, d.generation, d.error_message, d.retry_count, t.source, t.params, t.path, t.priority, t.attempt,
    extract(EPOCH FROM d.failed_at)::bigint AS failed_time
FROM collect.dead_letter AS d
JOIN collect.task AS t ON t.id = d.task_id
WHERE d.confirmed_at IS NULL
ORDER BY d.id
LIMIT %(limit)s
