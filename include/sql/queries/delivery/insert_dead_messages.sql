-- Keeps dead messages of no task; one that comes again is known by its key. In key order, so that two drains cannot wait
-- for each other. Unique key dead_letter_message_once.
INSERT INTO collect.dead_letter (
    message_key, error_message, failed_at, retry_count, confirmed_at, drained_at, message_id, routing_key, headers,
    properties, x_death, body, body_bytes, send_exchange, send_routing_key
)
SELECT
    m.message_key, m.error_message, to_timestamp(m.failed_at), m.retry_count, now(), now(), m.message_id, m.routing_key,
    m.headers, m.properties, m.x_death, m.body, m.body_bytes, m.send_exchange, m.send_routing_key
FROM unnest(
    %(message_keys)s::bytea[], %(error_messages)s::text[], %(failed_at)s::float8[], %(retry_counts)s::int[],
    %(message_ids)s::text[], %(routing_keys)s::text[], %(headers)s::jsonb[], %(properties)s::jsonb[],
    %(x_deaths)s::jsonb[], %(bodies)s::bytea[], %(body_bytes)s::bigint[], %(send_exchanges)s::text[],
    %(send_routing_keys)s::text[]
) AS m (
    message_key, error_message, failed_at, retry_count, message_id, routing_key, headers, properties, x_death, body,
    body_bytes, send_exchange, send_routing_key
)
ORDER BY m.message_key
ON CONFLICT ON CONSTRAINT dead_letter_message_once DO NOTHING
RETURNING id
