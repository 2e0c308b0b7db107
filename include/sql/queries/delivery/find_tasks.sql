-- Tasks that match everything that is given, the longest waiting first. Locks nothing: who acts on them looks again.
-- Indexes task_open, task_source_recent, primary key.
SELECT id
FROM collect.task
WHERE
    status = ANY(%(status)s::text[])
    AND (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s::bigint[]))
    AND (%(source)s::text IS NULL OR source = %(source)s::text)
    AND (%(lane)s::text IS NULL OR lane = %(lane)s::text)
    AND (%(priority_min)s::int IS NULL OR priority >= %(priority_min)s::int)
    AND (%(priority_max)s::int IS NULL OR priority <= %(priority_max)s::int)
    AND (%(submitted_by)s::text IS NULL OR submitted_by = %(submitted_by)s::text)
    AND (%(submitted_via)s::text IS NULL OR submitted_via = %(submitted_via)s::text)
    AND (%(older_than_s)s::float8 IS NULL OR aged_from < now() - make_interval(secs => %(older_than_s)s::float8))
    AND (%(params)s::jsonb IS NULL OR params @> %(params)s::jsonb)
ORDER BY aged_from, id
LIMIT %(limit)s
