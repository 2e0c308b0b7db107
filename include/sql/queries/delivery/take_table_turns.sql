-- Takes the turn of every table with events that may be sent now; returns the tables. Of two at once the later waits for
-- the first one's row and then finds the turn taken. In the order of names, so that they do not wait for each other.
-- Indexes table_event_table, table_event_turn_pkey.
INSERT INTO collect.table_event_turn AS t (table_name, next_at)
SELECT DISTINCT e.table_name, now() + make_interval(secs => %(interval_s)s)
FROM collect.table_event AS e
ORDER BY e.table_name
ON CONFLICT (table_name) DO UPDATE SET next_at = excluded.next_at WHERE t.next_at <= now()
RETURNING t.table_name
