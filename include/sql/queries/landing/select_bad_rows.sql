-- Bad rows of a task, or of a source's tasks, in the order of the source's pages. Index bad_row_shard; of a source
-- task_source_recent. Read through a cursor: there may be millions.
SELECT b.task_id, t.source, b.shard_no, b.page, b.ordinal, b.at, b.reason, b.row_text
FROM collect.task AS t
JOIN collect.bad_row AS b ON b.task_id = t.id
WHERE
    (%(task_id)s::bigint IS NULL OR t.id = %(task_id)s::bigint)
    AND (%(source)s::text IS NULL OR t.source = %(source)s::text)
    AND (%(since)s::timestamptz IS NULL OR b.at >= %(since)s::timestamptz)
ORDER BY b.task_id, b.shard_no, b.page, b.ordinal
