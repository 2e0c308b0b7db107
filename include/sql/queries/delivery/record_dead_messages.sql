-- Keeps the messages of dead letters of tasks with their rows. A message that comes again moves nothing. Locks in id order.
-- Primary key.
WITH undrained AS (
    SELECT d.id FROM collect.dead_letter AS d
    WHERE d.id = ANY(%(letter_ids)s::bigint[]) AND d.drained_at IS NULL
    ORDER BY d.id
    FOR NO KEY UPDATE
)
UPDATE collect.dead_letter AS d
SET
    drained_at = now(), message_id = m.message_id, routing_key = m.routing_key, headers = m.headers,
    properties = m.properties, x_death = m.x_death, body = m.body, body_bytes = m.body_bytes,
    -- The broker had it, whatever became of the confirm.
    confirmed_at = coalesce(d.confirmed_at, now())
FROM unnest(
    %(letter_ids)s::bigint[], %(message_ids)s::text[], %(routing_keys)s::text[], %(headers)s::jsonb[],
    %(properties)s::jsonb[], %(x_deaths)s::jsonb[], %(bodies)s::bytea[], %(body_bytes)s::bigint[]
) AS m (letter_id, message_id, routing_key, headers, properties, x_death, body, body_bytes)
JOIN undrained AS u ON u.id = m.letter_id
WHERE d.id = u.id
RETURNING d.id
