-- Deletes redrives that ended long ago, with their items, unless a letter that they sent again is under way. Some at a
-- time; the caller goes on while as many go as it asked for. Primary key, index dead_letter_pkey. Two at once delete each
-- row once.
WITH oldest AS (
    SELECT r.id
    FROM collect.redrive AS r
    WHERE
        r.finished_at < now() - make_interval(secs => %(keep_s)s)
        AND NOT EXISTS (
            SELECT FROM collect.redrive_item AS i
            JOIN collect.dead_letter AS d ON d.id = i.dead_letter_id
            WHERE i.redrive_id = r.id AND d.state = 'REDRIVEN'
        )
    ORDER BY r.id
    LIMIT %(most)s
)
DELETE FROM collect.redrive AS r
USING oldest AS o
WHERE r.id = o.id AND r.finished_at IS NOT NULL
