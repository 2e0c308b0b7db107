-- Some dead letters, locked in id order; after their tasks (lock_letter_tasks). Primary key.
SELECT
    id, state, task_id, error_message, failed_at, retry_count, redriven_attempt, headers, properties, message_id,
    send_exchange, send_routing_key, body_bytes, octet_length(body) AS kept_bytes, edited_body IS NOT NULL AS edited,
    CASE WHEN task_id IS NULL THEN coalesce(edited_body, body) END AS body
FROM collect.dead_letter
WHERE id = ANY(%(ids)s::bigint[])
ORDER BY id
FOR NO KEY UPDATE
