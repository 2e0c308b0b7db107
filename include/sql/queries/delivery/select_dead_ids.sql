-- Ids of dead letters that match everything that is asked for (NULL asks nothing), newest first. A text is looked for in
-- the error and in the bodies of messages. Primary key; indexes dead_letter_open, dead_letter_failed, dead_letter_once.
SELECT d.id
FROM collect.dead_letter AS d
WHERE
    (%(ids)s::bigint[] IS NULL OR d.id = ANY(%(ids)s::bigint[]))
    AND (%(states)s::text[] IS NULL OR d.state = ANY(%(states)s::text[]))
    AND (%(fingerprint)s::text IS NULL OR d.fingerprint = %(fingerprint)s)
    AND (%(source)s::text IS NULL OR d.source = %(source)s)
    AND (%(task_id)s::bigint IS NULL OR d.task_id = %(task_id)s)
    AND (%(redrive_id)s::bigint IS NULL OR EXISTS (
        SELECT FROM collect.redrive_item AS i
        WHERE i.redrive_id = %(redrive_id)s AND i.dead_letter_id = d.id
    ))
    AND (%(since)s::timestamptz IS NULL OR d.failed_at >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR d.failed_at < %(until)s)
    AND (
        %(text)s::text IS NULL
        OR position(lower(%(text)s) IN lower(d.error_message)) > 0
        OR position(convert_to(%(text)s, 'UTF8') IN d.body) > 0
    )
    AND (%(before)s::bigint IS NULL OR d.id < %(before)s)
ORDER BY d.id DESC
LIMIT %(limit)s
