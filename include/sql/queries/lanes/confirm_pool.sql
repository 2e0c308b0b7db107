-- Records that Airflow has set a lane's pool, if that is still what is wanted: widened slots count from now on, and the
-- journal has the time. Primary key, index backlog_action_unfinished. Twice is the same as once.
WITH confirmed AS (
    UPDATE collect.lane_setting
    SET slots = pool_wanted, pool_dirty = false
    WHERE lane = %(lane)s AND pool_wanted IS NOT DISTINCT FROM %(wanted)s::integer
    RETURNING lane
),

applied AS (
    UPDATE collect.backlog_action AS a
    SET
        applied_at = CASE WHEN a.ending_at IS NULL THEN coalesce(a.applied_at, clock_timestamp()) ELSE a.applied_at END,
        undone_at = CASE WHEN a.ending_at IS NOT NULL THEN clock_timestamp() END,
        problem = NULL
    FROM confirmed AS c
    WHERE a.kind = 'lane' AND a.scope = c.lane AND a.action = 'widen_pool' AND a.undone_at IS NULL
    RETURNING a.id
)

SELECT count(*) AS journalled FROM applied
