-- Connection failures of a host. With enough of them in a row it is held; what was under way when it was, and fails as
-- well, does not make it longer; a probe that fails does. Primary key; adds, so safe when two come at once. Returns
-- whether it is held now.
INSERT INTO collect.host AS h (connection, failures, last_error, holds, held_until)
VALUES (
    %(connection)s::text, %(failures)s::int, %(error)s::text,
    CASE WHEN %(failures)s::int >= %(limit)s::int THEN 1 ELSE 0 END,
    CASE WHEN %(failures)s::int >= %(limit)s::int THEN now() + make_interval(secs => %(hold_s)s::float8) END
)
ON CONFLICT (connection) DO UPDATE SET
failures = h.failures + excluded.failures,
last_error = excluded.last_error,
holds = h.holds + CASE
    WHEN h.failures + excluded.failures >= %(limit)s::int AND (h.held_until IS NULL OR h.held_until <= now() OR h.probing)
        THEN 1
    ELSE 0
END,
held_until = CASE
    WHEN h.failures + excluded.failures >= %(limit)s::int AND (h.held_until IS NULL OR h.held_until <= now() OR h.probing)
        THEN now() + make_interval(
            secs => least(%(max_hold_s)s::float8, %(hold_s)s::float8 * power(%(factor)s::float8, least(h.holds, 30)))
        )
    ELSE h.held_until
END,
probing = false,
changed_at = now()
RETURNING held_until IS NOT NULL AND held_until > now() AS held
