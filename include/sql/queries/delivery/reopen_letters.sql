-- Dead letters are open again: those whose task was taken back, and discarded ones. The caller holds their locks
-- (lock_letters). Primary key.
UPDATE collect.dead_letter
SET state = 'OPEN', state_at = now(), state_by = %(actor)s, state_reason = %(reason)s, redriven_attempt = NULL
WHERE id = ANY(%(ids)s::bigint[]) AND state IN ('REDRIVEN', 'DISCARDED')
RETURNING id
