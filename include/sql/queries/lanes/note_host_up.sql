-- A host has answered: nothing is held for it any more. Primary key; most hosts have no row, and then nothing is done.
-- Returns whether something was held.
WITH up AS (
    SELECT connection, held_until IS NOT NULL AS was_held FROM collect.host
    WHERE connection = %(connection)s AND (failures > 0 OR held_until IS NOT NULL)
    FOR NO KEY UPDATE
)
UPDATE collect.host AS h
SET failures = 0, holds = 0, held_until = NULL, probing = false, changed_at = now()
FROM up
WHERE h.connection = up.connection
RETURNING up.was_held
