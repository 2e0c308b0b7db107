-- The tasks under way in some runs, with what they ask of a node. Index task_run.
SELECT
    t.id, t.attempt, t.status, t.priority, t.run_id, t.dag_id, t.refused_nodes, t.dispatch_failures,
    extract(EPOCH FROM now() - t.aged_from)::float8 AS waited_s,
    v.definition -> 'placement' AS placement
FROM collect.task AS t
JOIN collect.source_version AS v ON v.hash = t.source_version
WHERE t.run_id = ANY(%(run_ids)s::text[]) AND t.status IN ('CLAIMED', 'DISPATCHED', 'RUNNING')
ORDER BY t.id
