-- A host asks for patience, or its quota is used up: nothing is sent to it for so long. Primary key; of two pauses the longer
-- one counts. Without seconds: until the UTC day ends.
INSERT INTO collect.host AS h (connection, paused_until, pause_reason)
VALUES (
    %(connection)s::text,
    coalesce(
        clock_timestamp() + make_interval(secs => %(seconds)s::float8),
        (date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC') + interval '1 day') AT TIME ZONE 'UTC'
    ),
    %(reason)s::text
)
ON CONFLICT (connection) DO UPDATE SET
paused_until = greatest(h.paused_until, excluded.paused_until),
pause_reason = CASE
    WHEN h.paused_until >= excluded.paused_until THEN h.pause_reason ELSE excluded.pause_reason
END,
changed_at = now()
