-- Discards open dead letters; their tasks stay DEAD. Locks in id order. Primary key; safe twice.
WITH chosen AS (
    SELECT id FROM collect.dead_letter
    WHERE id = ANY(%(ids)s::bigint[]) AND state = 'OPEN'
    ORDER BY id
    FOR NO KEY UPDATE
)
UPDATE collect.dead_letter AS d
SET state = 'DISCARDED', state_at = now(), state_by = %(actor)s, state_reason = %(reason)s
FROM chosen
WHERE d.id = chosen.id
RETURNING d.id
