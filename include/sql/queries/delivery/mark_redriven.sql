-- Dead letters that were sent again. The caller holds their locks (lock_letters). Primary key.
UPDATE collect.dead_letter AS d
SET
    state = 'REDRIVEN', state_at = now(), state_by = %(actor)s, state_reason = %(reason)s, redriven_attempt = m.attempt
FROM unnest(%(ids)s::bigint[], %(attempts)s::int[]) AS m (id, attempt)
WHERE d.id = m.id AND d.state = 'OPEN'
