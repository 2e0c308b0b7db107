-- Redriven letters whose task has ended again. Index dead_letter_redriven; safe twice and at once. Locks in id order.
WITH ended AS (
    SELECT d.id, t.status, t.reason
    FROM collect.dead_letter AS d
    JOIN collect.task AS t ON t.id = d.task_id
    WHERE d.state = 'REDRIVEN' AND t.status IN ('COMPLETED', 'PARTIAL', 'DEAD', 'CANCELLED')
    ORDER BY d.id
    FOR NO KEY UPDATE OF d SKIP LOCKED
)
UPDATE collect.dead_letter AS d
SET
    state = CASE WHEN e.status IN ('COMPLETED', 'PARTIAL') THEN 'SETTLED' ELSE 'FAILED' END,
    state_at = now(), state_reason = 'ended ' || e.status || coalesce(': ' || left(e.reason, 500), '')
FROM ended AS e
WHERE d.id = e.id AND d.state = 'REDRIVEN'
RETURNING d.id
