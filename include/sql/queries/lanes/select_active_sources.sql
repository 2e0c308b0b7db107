-- The sources that ask a host now: those of the tasks under way at its connection. Index task_open.
SELECT DISTINCT t.source
FROM collect.task AS t
JOIN collect.source_version AS v ON v.hash = t.source_version
WHERE t.status IN ('DISPATCHED', 'RUNNING') AND v.definition ->> 'connection' = %(connection)s
