-- Lanes whose Airflow pool has to be set: what is wanted was not confirmed, or it is widened (someone may have set it back
-- by hand). Small table.
SELECT lane, pool_wanted
FROM collect.lane_setting
WHERE pool_dirty OR pool_wanted IS NOT NULL
ORDER BY lane
