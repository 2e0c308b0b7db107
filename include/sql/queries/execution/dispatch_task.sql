-- A run's first act: the conditional move that names its attempt. Moves nothing when a repair was faster or somebody
-- cleared an old run. Primary key.
UPDATE collect.task AS t
SET status = 'DISPATCHED', error = NULL, moved_by = %(actor)s, dispatched_at = now(),
    reason = CASE WHEN t.nodes <> '{}' THEN 'dispatched to ' || array_to_string(t.nodes, ', ') END,
    started_at = coalesce(t.started_at, now()), progress_at = now()
FROM collect.source_version AS v
WHERE
    t.id = %(task_id)s AND t.attempt = %(attempt)s AND t.run_id = %(run_id)s AND t.status = 'CLAIMED'
    AND v.hash = t.source_version
RETURNING
    t.id, t.source, t.attempt, t.lane, t.run_id, t.path, t.params, t.total_rows, t.shards_total, t.nodes,
    encode(v.hash, 'hex') AS version, v.format,
    coalesce(v.declared, v.definition) AS definition
