-- Tables with events that may be sent now, the oldest landing first; those that failed last, the latest failure at the end.
-- A pass with a time limit leaves those alone. As many rows in collect.table_event as tasks ended in the last seconds.
-- Takes no locks: who sends takes the turn. Indexes table_event_table, table_event_turn_pkey.
SELECT e.table_name
FROM collect.table_event AS e
LEFT JOIN collect.table_event_turn AS t ON t.table_name = e.table_name
WHERE (t.next_at IS NULL OR t.next_at <= now()) AND (t.failed_at IS NULL OR NOT %(limited)s::boolean)
GROUP BY e.table_name, t.failed_at
ORDER BY t.failed_at NULLS FIRST, min(e.landed_at), e.table_name
