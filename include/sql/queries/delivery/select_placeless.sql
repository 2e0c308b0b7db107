-- Tasks that are held until a node can take them, the most urgent first. Index task_open.
SELECT
    t.id, t.priority, t.attempt, t.refused_nodes, extract(EPOCH FROM now() - t.aged_from)::float8 AS waited_s,
    v.definition -> 'placement' AS placement
FROM collect.task AS t
JOIN collect.source_version AS v ON v.hash = t.source_version
WHERE t.status = 'HELD' AND t.held_for = 'node'
ORDER BY t.priority DESC, t.id
LIMIT 10000
