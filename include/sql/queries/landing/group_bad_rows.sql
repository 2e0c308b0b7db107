-- Bad rows of a task, or of a source's tasks, by reason without the values: a row a reason, the most frequent first,
-- with the oldest and the newest row as examples. Indexes bad_row_shard, bad_row_pkey; of a source task_source_recent.
WITH reasons AS (
    SELECT
        regexp_replace(
            regexp_replace(b.reason, '^([^:]+): .* does not fit ', '\1: … does not fit '), '".*"', '"…"'
        ) AS pattern,
        count(*) AS row_count,
        count(DISTINCT b.task_id) AS task_count,
        min(b.at) AS first_at,
        max(b.at) AS last_at,
        min(b.id) AS oldest_id,
        max(b.id) AS newest_id
    FROM collect.task AS t
    JOIN collect.bad_row AS b ON b.task_id = t.id
    WHERE
        (%(task_id)s::bigint IS NULL OR t.id = %(task_id)s::bigint)
        AND (%(source)s::text IS NULL OR t.source = %(source)s::text)
        AND (%(since)s::timestamptz IS NULL OR b.at >= %(since)s::timestamptz)
    GROUP BY pattern
)

SELECT
    r.pattern,
    r.row_count,
    r.task_count,
    r.first_at,
    r.last_at,
    (sum(r.row_count) OVER ())::bigint AS all_rows,
    count(*) OVER () AS all_reasons,
    (
        SELECT jsonb_agg(jsonb_build_object(
            'task_id', b.task_id, 'shard_no', b.shard_no, 'page', b.page, 'ordinal', b.ordinal, 'at', b.at,
            'reason', b.reason, 'row_text', b.row_text
        ) ORDER BY b.id DESC)
        FROM collect.bad_row AS b
        WHERE b.id IN (r.newest_id, r.oldest_id)
    ) AS examples
FROM reasons AS r
ORDER BY r.row_count DESC, r.pattern
LIMIT %(limit)s
