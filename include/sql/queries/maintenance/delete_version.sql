-- Deletes a stored declaration, unless a task has come to use it. The caller holds the table's lock (in a mode that keeps admissions out).
-- Index task_source_recent; the foreign key of tasks is checked by reading them.
DELETE FROM collect.source_version AS v
WHERE
    v.hash = %(hash)s
    AND NOT EXISTS (
        SELECT FROM collect.task AS t
        WHERE t.source = v.source AND t.id > %(newest)s AND t.source_version = v.hash
    )
    AND NOT EXISTS (
        SELECT FROM collect.landing_target AS l WHERE l.version = v.hash
    )
