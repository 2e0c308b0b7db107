-- Says when a table's events may be sent next, 0 s: at once; and whether the last try failed. For whoever has its turn.
-- Primary key.
UPDATE collect.table_event_turn
SET next_at = now() + make_interval(secs => %(wait_s)s), failed_at = CASE WHEN %(failed)s::boolean THEN now() END
WHERE table_name = %(table_name)s
