-- Waiting tasks of a source that a backlog rule may shed, locked in id order: never begun, alone in their work, below a
-- priority, and declared sheddable when they were admitted. The lowest priority goes first, of equals the oldest; `keep`
-- stay. Index task_open. SKIP LOCKED: what a claim has in hand is not shed.
WITH surplus AS (
    SELECT t.id
    FROM collect.task AS t
    INNER JOIN collect.source_version AS v ON v.hash = t.source_version
    WHERE
        t.source = %(source)s
        AND t.status IN ('QUEUED', 'HELD')
        AND t.attempt = 0
        AND t.priority < %(below_priority)s
        AND t.merged_task_ids = '{}'
        AND t.withdrawn_at IS NULL
        AND coalesce((v.definition ->> 'sheddable')::boolean, false)
    ORDER BY t.priority DESC, t.id DESC
    OFFSET %(keep)s
)

SELECT t.id
FROM collect.task AS t
WHERE t.id IN (SELECT s.id FROM surplus AS s) AND t.status IN ('QUEUED', 'HELD')
ORDER BY t.id
LIMIT %(batch)s
FOR NO KEY UPDATE SKIP LOCKED
