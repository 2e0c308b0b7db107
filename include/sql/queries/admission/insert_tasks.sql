-- Stores admitted tasks, and their declarations as they are now: known ones stay. From a JSON array each. The ids were
-- taken from the identity's sequence before. Declarations in the order of their hashes, so that two batches cannot wait
-- for each other. Primary keys.
WITH declared AS (
    INSERT INTO collect.source_version (hash, source, definition, format, declared)
    SELECT decode(v.hash, 'hex'), v.source, v.definition, v.format, v.declared
    -- Not jsonb, which would sort what was declared.
    FROM json_to_recordset(%(versions)s::json) AS v (hash text, source text, definition json, format smallint, declared json)
    ORDER BY v.hash
    ON CONFLICT (hash) DO NOTHING
)
INSERT INTO collect.task (
    id, source, source_version, path, params, dedup_key, priority, lane, max_retries, submitted_by, submitted_via,
    base_priority, emergency, deadline, merge_key, reason, status, moved_by
)
OVERRIDING SYSTEM VALUE
SELECT
    n.id, n.source, decode(n.source_version, 'hex'), n.path, n.params, decode(n.dedup_key, 'hex'), n.priority, n.lane,
    n.max_retries, n.submitted_by, n.submitted_via, n.base_priority, n.emergency, n.deadline, decode(n.merge_key, 'hex'), n.reason, 'QUEUED',
    n.submitted_by
FROM jsonb_to_recordset(%(tasks)s::jsonb) AS n (
    id bigint, source text, source_version text, path text, params jsonb, dedup_key text, priority smallint, lane text,
    max_retries int, submitted_by text, submitted_via text, base_priority smallint, emergency boolean, deadline timestamptz, merge_key text, reason text
)
