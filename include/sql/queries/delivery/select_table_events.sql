-- A table's events that are to be sent, as one. Index table_event_table.
SELECT
    coalesce(array_agg(e.id), '{}') AS ids,
    coalesce((array_agg(e.task_id ORDER BY e.id DESC))[:%(most)s], '{}') AS task_ids,
    coalesce(array_agg(DISTINCT e.source), '{}') AS sources,
    count(DISTINCT e.task_id) AS tasks,
    coalesce(sum(e.rows_landed), 0)::bigint AS rows_landed,
    coalesce(extract(EPOCH FROM now() - min(e.landed_at)), 0)::float8 AS oldest_s
FROM collect.table_event AS e
WHERE e.table_name = %(table_name)s
