-- Ends a redrive: what it has not done stays open. Waits for a step that is under way. Primary keys.
WITH ended AS (
    UPDATE collect.redrive
    SET finished_at = clock_timestamp(), cancelled_at = clock_timestamp(), cancelled_by = %(actor)s
    WHERE id = %(redrive_id)s AND finished_at IS NULL
    RETURNING id
)
UPDATE collect.redrive_item AS i
SET state = 'CANCELLED', at = clock_timestamp()
FROM ended AS e
WHERE i.redrive_id = e.id AND i.state = 'PENDING'
