-- Seconds since a redrive's last step, by the database's clock. A statement of its own, after the redrive's lock, which may
-- have been waited for.
SELECT extract(EPOCH FROM clock_timestamp() - %(at)s::timestamptz)::float8 AS elapsed_s
