-- Stores admitted tasks. The ids were taken from the identity's sequence before.
INSERT INTO collect.task (
    id, source, source_version, path, params, dedup_key, priority, lane, max_retries, submitted_by, submitted_via,
    status, moved_by
)
OVERRIDING SYSTEM VALUE
SELECT
    n.id, n.source, n.source_version, n.path, n.params, n.dedup_key, n.priority, n.lane, n.max_retries,
    n.submitted_by, n.submitted_via, 'QUEUED', n.submitted_by
FROM unnest(
    %(ids)s::bigint[], %(sources)s::text[], %(source_versions)s::bytea[], %(paths)s::text[], %(params)s::jsonb[],
    %(dedup_keys)s::bytea[], %(priorities)s::smallint[], %(lanes)s::text[], %(max_retries)s::int[],
    %(submitted_by)s::text[], %(submitted_via)s::text[]
) AS n (
    id, source, source_version, path, params, dedup_key, priority, lane, max_retries, submitted_by, submitted_via
)
