-- A table whose asset Airflow does not know: not asked for again before the time is up. Primary key.
UPDATE collect.table_event_turn
SET next_at = now() + make_interval(secs => %(wait_s)s)
WHERE table_name = %(table_name)s
