-- Takes a table's turn; no row when another has it or its time has not come. Of two at once the later waits for the first
-- one's row and then finds the turn taken. Primary key.
INSERT INTO collect.table_event_turn AS t (table_name, next_at)
VALUES (%(table_name)s, now() + make_interval(secs => %(interval_s)s))
ON CONFLICT (table_name) DO UPDATE SET next_at = excluded.next_at WHERE t.next_at <= now()
RETURNING t.failed_at IS NOT NULL AS failed
