-- Marks tasks as merged into their survivors: each keeps what its own caller asked for. The caller holds their locks
-- (lock_mergeable), so all of them still wait. Primary key.
UPDATE collect.task AS t
SET
    status = 'MERGED', merged_into = p.survivor, reason = 'merged into task ' || p.survivor, moved_by = %(actor)s,
    params = coalesce(t.own_params, t.params), own_params = NULL, confirmed_generation = t.generation,
    progress_at = now()
FROM unnest(%(survivors)s::bigint[], %(merged)s::bigint[]) AS p (survivor, merged)
WHERE t.id = p.merged AND t.status IN ('QUEUED', 'HELD') AND t.attempt = 0
