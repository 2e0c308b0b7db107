-- A host's circuit as it is now. Primary key; the caller holds the record's lock (lock_hosts).
UPDATE collect.host
SET
    failures = %(failures)s, holds = %(holds)s, probing = %(probing)s, probes = %(probes)s,
    last_error = coalesce(%(error)s::text, last_error),
    requests = %(requests)s, errors = %(errors)s,
    requests_before = %(requests_before)s, errors_before = %(errors_before)s,
    held_until = to_timestamp(%(held_until)s::float8),
    since = to_timestamp(%(since)s::float8),
    window_from = to_timestamp(%(window_from)s::float8),
    answered_at = to_timestamp(%(answered_at)s::float8),
    changed_at = now()
WHERE connection = %(connection)s
