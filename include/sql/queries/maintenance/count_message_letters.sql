-- What delete_message_letters would delete, for a dry run. Index dead_letter_once.
SELECT count(*) AS rows
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
