-- Sets what the rules want of lanes; NULL: as include/rules/lanes.yaml says. Slots are narrowed here, before the pool;
-- widened slots count once Airflow has confirmed the pool (confirm_pool). Primary key; only the holder of the backlog's
-- lock writes. Lanes that are not named are forgotten.
WITH gone AS (
    DELETE FROM collect.lane_setting
    WHERE NOT lane = ANY(%(lanes)s::text[])
)

INSERT INTO collect.lane_setting AS s (lane, groups_per_task, pack, pool_wanted, pool_dirty)
SELECT w.lane, w.groups_per_task, w.pack, w.pool_wanted, w.pool_wanted IS NOT NULL
FROM unnest(
    %(lanes)s::text[], %(groups_per_task)s::integer[], %(packs)s::integer[], %(pools)s::integer[]
) AS w (lane, groups_per_task, pack, pool_wanted)
ON CONFLICT (lane) DO UPDATE
SET
    groups_per_task = excluded.groups_per_task,
    pack = excluded.pack,
    pool_wanted = excluded.pool_wanted,
    pool_dirty = s.pool_dirty OR s.pool_wanted IS DISTINCT FROM excluded.pool_wanted,
    slots = CASE WHEN s.slots > excluded.pool_wanted THEN excluded.pool_wanted WHEN excluded.pool_wanted > 0 THEN s.slots END
