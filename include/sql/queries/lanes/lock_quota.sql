-- What was given out of a host's quota, locked until the transaction ends, so that never more than the quota is; no row:
-- nobody has declared one. Days are UTC, by this clock, which is read before the lock is waited for: a day that ends
-- meanwhile is counted as the one before, and never given out twice. Primary key.
SELECT
    greatest(q.day, (clock_timestamp() AT TIME ZONE 'UTC')::date) AS today,
    q.day, q.quota, q.granted,
    extract(
        EPOCH FROM greatest(q.day, (clock_timestamp() AT TIME ZONE 'UTC')::date)
        + interval '1 day' - clock_timestamp() AT TIME ZONE 'UTC'
    )::float8 AS left_s
FROM collect.host_quota AS q
WHERE q.connection = %(connection)s
FOR UPDATE
