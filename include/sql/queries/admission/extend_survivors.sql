-- Survivors of a merge take over what the merged ask for: params, highest priority (and the lane that takes it), earliest
-- deadline, all their ids. A new generation, since the message of the old one may be in a slower lane. The caller holds
-- the locks of all of them (lock_mergeable); runs before merge_tasks, whose rows it reads. Primary key. Returns what to
-- publish.
WITH gathered AS (
    SELECT
        p.survivor,
        max(m.priority) AS priority,
        max(m.base_priority) AS base_priority,
        bool_or(m.emergency) AS emergency,
        min(m.aged_from) AS aged_from,
        min(m.deadline) AS deadline,
        array_agg(DISTINCT held.id) AS ids
    FROM unnest(%(survivors)s::bigint[], %(merged)s::bigint[]) AS p (survivor, merged)
    JOIN collect.task AS m ON m.id = p.merged
    CROSS JOIN LATERAL unnest(array_append(m.merged_task_ids, m.id)) AS held (id)
    GROUP BY p.survivor
)
UPDATE collect.task AS t
SET
    params = e.params,
    own_params = coalesce(t.own_params, t.params),
    merged_task_ids = t.merged_task_ids || g.ids,
    priority = greatest(t.priority, g.priority),
    base_priority = greatest(t.base_priority, g.base_priority),
    emergency = t.emergency OR g.emergency,
    aged_from = least(t.aged_from, g.aged_from),
    lane = (%(lanes)s::text[])[greatest(t.priority, g.priority) + 1],
    deadline = least(t.deadline, g.deadline),
    generation = t.generation + 1,
    -- HELD tasks are published when they are released.
    confirmed_generation = CASE WHEN t.status = 'HELD' THEN t.generation + 1 ELSE t.confirmed_generation END,
    queued_at = now(),
    progress_at = now(),
    moved_by = %(actor)s,
    reason = CASE
        WHEN t.status = 'HELD' THEN t.reason
        ELSE 'collects for tasks ' || array_to_string(t.merged_task_ids || g.ids, ', ') || ' as well'
    END
FROM gathered AS g
JOIN unnest(%(extended)s::bigint[], %(params)s::jsonb[]) AS e (survivor, params) ON e.survivor = g.survivor
WHERE t.id = g.survivor
RETURNING t.id, t.status, t.generation, t.priority, t.lane, t.retry_count, t.params
