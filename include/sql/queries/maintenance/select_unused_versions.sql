-- Stored declarations that no task refers to and whose rows did not land last in a table, seen first long ago; the newest
-- task of their sources beside each, so that who deletes one need only look at what came later. Reads one row a
-- declaration, and a source's tasks where one is not used: index task_source_recent.
SELECT
    v.hash, v.source,
    coalesce((SELECT t.id FROM collect.task AS t WHERE t.source = v.source ORDER BY t.id DESC LIMIT 1), 0) AS newest
FROM collect.source_version AS v
WHERE
    v.seen_at < now() - make_interval(secs => %(keep_s)s)
    AND NOT EXISTS (
        SELECT FROM collect.landing_target AS l WHERE l.version = v.hash
    )
    AND NOT EXISTS (
        SELECT FROM collect.task AS t WHERE t.source = v.source AND t.source_version = v.hash
    )
ORDER BY v.seen_at
LIMIT %(most)s
