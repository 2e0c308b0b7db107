-- Gives waiting tasks other priorities, each as a new generation in the lane that takes it; their old messages are dropped
-- at claim. One statement for any number. The caller holds their locks (lock_waiting, lock_aged). Primary key. Returns
-- what to publish.
UPDATE collect.task AS t
SET
    priority = n.priority, lane = n.lane, base_priority = n.base_priority, emergency = n.emergency, pinned = n.pinned,
    aged_from = CASE WHEN n.anew THEN now() ELSE t.aged_from END,
    generation = t.generation + 1, moved_by = %(actor)s, queued_at = now(), progress_at = now(),
    -- HELD and RETRYING tasks say on why they are; HELD ones are published when they are released.
    reason = CASE
        WHEN t.status IN ('HELD', 'RETRYING') THEN concat_ws(
            ' | ',
            nullif(regexp_replace(coalesce(t.reason, ''), ' \| priority set to [0-9]+: .*$', ''), ''),
            'priority set to ' || n.priority || ': ' || %(reason)s
        )
        ELSE %(reason)s
    END,
    confirmed_generation = CASE WHEN t.status = 'HELD' THEN t.generation + 1 ELSE t.confirmed_generation END
FROM unnest(
    %(task_ids)s::bigint[], %(priorities)s::smallint[], %(lanes)s::text[], %(bases)s::smallint[],
    %(emergencies)s::boolean[], %(pinned)s::boolean[], %(anew)s::boolean[]
) AS n (id, priority, lane, base_priority, emergency, pinned, anew)
WHERE t.id = n.id AND t.status IN ('QUEUED', 'HELD', 'RETRYING')
RETURNING
    t.id, t.status, t.generation, t.priority, t.lane, t.retry_count,
    extract(EPOCH FROM t.due_at - now())::float8 AS due_in_s
