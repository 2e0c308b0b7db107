-- Tasks that match everything that is given, newest first: a page of them below the number `before`.
-- Indexes task_source_recent with a source, else task_pkey backwards (task_open, task_created where they are narrower);
-- shards by their primary key, of the page alone.
WITH page AS MATERIALIZED (
    SELECT t.id
    FROM collect.task AS t
    WHERE
        (%(before)s::bigint IS NULL OR t.id < %(before)s::bigint)
        AND (%(status)s::text[] IS NULL OR t.status = ANY(%(status)s::text[]))
        AND (%(source)s::text IS NULL OR t.source = %(source)s::text)
        AND (%(lane)s::text IS NULL OR t.lane = %(lane)s::text)
        AND (%(priority_min)s::int IS NULL OR t.priority >= %(priority_min)s::int)
        AND (%(priority_max)s::int IS NULL OR t.priority <= %(priority_max)s::int)
        AND (%(since)s::timestamptz IS NULL OR t.created_at >= %(since)s::timestamptz)
        AND (%(until)s::timestamptz IS NULL OR t.created_at < %(until)s::timestamptz)
        AND (
            %(text)s::text IS NULL
            OR strpos(lower(t.reason), lower(%(text)s::text)) > 0
            OR strpos(lower(t.error ->> 'message'), lower(%(text)s::text)) > 0
        )
    ORDER BY t.id DESC
    LIMIT %(limit)s
)

SELECT
    p.id,
    p.source,
    p.status,
    p.lane,
    p.priority,
    p.attempt,
    p.retry_count,
    p.total_rows,
    p.rows_landed,
    p.bad_rows,
    coalesce(p.reason, t.error ->> 'message') AS reason,
    t.submitted_by,
    p.created_at,
    p.started_at,
    p.finished_at,
    t.result ->> 'swap' AS swap,
    coalesce(v.definition #>> '{target,disposition}' = 'replace', false) AS replaces
FROM page
JOIN collect.task AS t ON t.id = page.id
JOIN collect.source_version AS v ON v.hash = t.source_version
JOIN collect.task_progress AS p ON p.id = page.id
ORDER BY page.id DESC
