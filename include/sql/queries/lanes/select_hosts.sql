-- The records of some hosts (source is null) and of their endpoints, and the database's time; most have none. Primary keys.
SELECT
    h.connection, NULL::text AS source, h.failures, h.holds, h.probing, h.probes, h.last_error, h.pause_reason,
    h.requests, h.errors, h.requests_before, h.errors_before,
    extract(EPOCH FROM h.held_until)::float8 AS held_until,
    extract(EPOCH FROM h.since)::float8 AS since,
    extract(EPOCH FROM h.window_from)::float8 AS window_from,
    extract(EPOCH FROM h.paused_until)::float8 AS paused_until,
    extract(EPOCH FROM h.answered_at)::float8 AS answered_at,
    NULL::float8 AS unanswered_at,
    extract(EPOCH FROM clock_timestamp())::float8 AS now
FROM collect.host AS h
WHERE h.connection = ANY(%(connections)s::text[])
UNION ALL
SELECT
    e.connection, e.source, e.failures, e.holds, e.probing, e.probes, e.last_error, NULL AS pause_reason,
    e.requests, e.errors, e.requests_before, e.errors_before,
    extract(EPOCH FROM e.held_until)::float8 AS held_until,
    extract(EPOCH FROM e.since)::float8 AS since,
    extract(EPOCH FROM e.window_from)::float8 AS window_from,
    NULL AS paused_until,
    NULL AS answered_at,
    extract(EPOCH FROM e.unanswered_at)::float8 AS unanswered_at,
    extract(EPOCH FROM clock_timestamp())::float8 AS now
FROM collect.endpoint AS e
WHERE e.connection = ANY(%(connections)s::text[])
