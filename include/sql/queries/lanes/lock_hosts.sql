-- The records of hosts, made where there is none, locked until the transaction ends, in the order of their names; with the
-- database's time when the lock was got. Primary key. Every change of a record is made under this lock.
INSERT INTO collect.host AS h (connection)
SELECT c.connection FROM unnest(%(connections)s::text[]) AS c (connection) ORDER BY c.connection
ON CONFLICT (connection) DO UPDATE SET connection = excluded.connection
RETURNING
    h.connection, h.failures, h.holds, h.probing, h.probes, h.last_error, h.pause_reason,
    h.requests, h.errors, h.requests_before, h.errors_before,
    extract(EPOCH FROM h.held_until)::float8 AS held_until,
    extract(EPOCH FROM h.since)::float8 AS since,
    extract(EPOCH FROM h.window_from)::float8 AS window_from,
    extract(EPOCH FROM h.paused_until)::float8 AS paused_until,
    extract(EPOCH FROM clock_timestamp())::float8 AS now
