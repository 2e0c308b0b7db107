-- Of some connections those whose host is held, with the seconds left; not above 0: one task may be let through. Primary
-- key.
SELECT connection, failures, holds, last_error, extract(EPOCH FROM held_until - now())::float8 AS left_s, held_until
FROM collect.host
WHERE connection = ANY(%(connections)s::text[]) AND held_until IS NOT NULL
