-- Of some endpoints the HELD task that is released first, if there is one: the highest priority, of equal ones the oldest.
-- None that waits for a node, or for a process of a newer release: those are not released with the others. Index task_held,
-- a probe for each version of a source that has held tasks.
WITH RECURSIVE asked AS (
    SELECT a.source, a.connection FROM unnest(%(sources)s::text[], %(connections)s::text[]) AS a (source, connection)
),
held AS (
    SELECT a.source, n.source_version
    FROM (SELECT DISTINCT source FROM asked) AS a
    CROSS JOIN LATERAL (
        SELECT t.source_version FROM collect.task AS t
        WHERE t.status = 'HELD' AND t.held_for IS NULL AND t.source = a.source
        ORDER BY t.source_version LIMIT 1
    ) AS n
    UNION ALL
    SELECT p.source, n.source_version
    FROM held AS p
    CROSS JOIN LATERAL (
        SELECT t.source_version FROM collect.task AS t
        WHERE
            t.status = 'HELD' AND t.held_for IS NULL AND t.source = p.source AND t.source_version > p.source_version
        ORDER BY t.source_version LIMIT 1
    ) AS n
)
SELECT DISTINCT ON (a.source, a.connection) a.source, a.connection, f.id, f.priority
FROM held AS e
JOIN collect.source_version AS v ON v.hash = e.source_version
JOIN asked AS a ON a.source = e.source AND a.connection = v.definition ->> 'connection'
CROSS JOIN LATERAL (
    SELECT t.id, t.priority FROM collect.task AS t
    WHERE
        t.status = 'HELD' AND t.held_for IS NULL AND t.source = e.source AND t.source_version = e.source_version
    ORDER BY t.priority DESC, t.id LIMIT 1
) AS f
WHERE v.format <= %(format)s
ORDER BY a.source, a.connection, f.priority DESC, f.id
