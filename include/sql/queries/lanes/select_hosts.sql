-- The records of some hosts, and the database's time; most have none. Primary key.
SELECT
    h.connection, h.failures, h.holds, h.probing, h.probes, h.last_error, h.pause_reason,
    h.requests, h.errors, h.requests_before, h.errors_before,
    extract(EPOCH FROM h.held_until)::float8 AS held_until,
    extract(EPOCH FROM h.since)::float8 AS since,
    extract(EPOCH FROM h.window_from)::float8 AS window_from,
    extract(EPOCH FROM h.paused_until)::float8 AS paused_until,
    extract(EPOCH FROM clock_timestamp())::float8 AS now
FROM collect.host AS h
WHERE h.connection = ANY(%(connections)s::text[])
