-- An endpoint's circuit as it is now. Primary key; the caller holds the lock of its host's record (lock_hosts).
INSERT INTO collect.endpoint AS e (
    connection, source, failures, holds, probing, probes, last_error, requests, errors, requests_before, errors_before,
    held_until, since, window_from, unanswered_at
)
VALUES (
    %(connection)s, %(source)s, %(failures)s, %(holds)s, %(probing)s, %(probes)s, %(error)s::text, %(requests)s,
    %(errors)s, %(requests_before)s, %(errors_before)s, to_timestamp(%(held_until)s::float8),
    to_timestamp(%(since)s::float8), to_timestamp(%(window_from)s::float8), to_timestamp(%(unanswered_at)s::float8)
)
ON CONFLICT (connection, source) DO UPDATE SET
failures = excluded.failures, holds = excluded.holds, probing = excluded.probing, probes = excluded.probes,
last_error = coalesce(excluded.last_error, e.last_error),
requests = excluded.requests, errors = excluded.errors,
requests_before = excluded.requests_before, errors_before = excluded.errors_before,
held_until = excluded.held_until, since = excluded.since, window_from = excluded.window_from,
unanswered_at = excluded.unanswered_at, changed_at = now()
