-- An event that may be sent now, of a landing some seconds old; none is the usual answer. As many rows in
-- collect.table_event as tasks ended in the last seconds. Indexes table_event_table, table_event_turn_pkey.
SELECT e.table_name
FROM collect.table_event AS e
LEFT JOIN collect.table_event_turn AS t ON t.table_name = e.table_name
WHERE (t.next_at IS NULL OR t.next_at <= now()) AND e.landed_at <= now() - make_interval(secs => %(older_than_s)s)
ORDER BY e.id
LIMIT 1
