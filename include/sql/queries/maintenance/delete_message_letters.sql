-- Deletes dead letters of messages without a task that were dealt with long ago, unless a redrive that is under way names
-- them. Some at a time; the caller goes on while as many go as it asked for. Indexes dead_letter_once,
-- redrive_item_letter. Two at once delete each row once; one that is opened again meanwhile stays.
WITH oldest AS (
    SELECT d.id
    FROM collect.dead_letter AS d
    WHERE
        d.failed_at < now() - make_interval(secs => %(keep_s)s)
        AND d.state_at < now() - make_interval(secs => %(keep_s)s)
        AND d.task_id IS NULL AND d.state IN ('SETTLED', 'FAILED', 'DISCARDED')
        AND NOT EXISTS (
            SELECT FROM collect.redrive_item AS i
            JOIN collect.redrive AS r ON r.id = i.redrive_id
            WHERE i.dead_letter_id = d.id AND r.finished_at IS NULL
        )
    ORDER BY d.failed_at
    LIMIT %(most)s
)
DELETE FROM collect.dead_letter AS d
USING oldest AS o
WHERE d.id = o.id AND d.state IN ('SETTLED', 'FAILED', 'DISCARDED')
