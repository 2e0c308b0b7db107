-- A claim has let a task through to each of these hosts, to see whether it answers: what else waits for it is held for
-- as long again. Primary key. A second claim at the same time lets through one more, which does no harm.
UPDATE collect.host AS h
SET
    probing = true,
    held_until = now() + make_interval(
        secs => least(%(max_hold_s)s::float8, %(hold_s)s::float8 * power(%(factor)s::float8, least(h.holds, 30)))
    ),
    changed_at = now()
WHERE h.connection = ANY(%(connections)s::text[]) AND h.held_until <= now()
