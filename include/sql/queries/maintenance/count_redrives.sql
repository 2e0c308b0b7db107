-- What delete_redrives would delete, for a dry run. Primary key.
SELECT count(*) AS rows
FROM collect.redrive AS r
WHERE
    r.finished_at < now() - make_interval(secs => %(keep_s)s)
    AND NOT EXISTS (
        SELECT FROM collect.redrive_item AS i
        JOIN collect.dead_letter AS d ON d.id = i.dead_letter_id
        WHERE i.redrive_id = r.id AND d.state = 'REDRIVEN'
    )
