-- Of some tasks those that have ended, or do not exist; of tasks that were merged their own share of the rows.
-- Primary key.
SELECT
    w.id,
    coalesce(t.status, 'MISSING') AS status,
    CASE WHEN t.id IS NULL THEN 'there is no such task' ELSE t.reason END AS reason,
    coalesce((t.result ->> 'own_rows')::bigint, (t.result ->> 'rows_landed')::bigint, 0) AS rows_landed,
    coalesce((t.result ->> 'bad_rows')::bigint, 0) AS bad_rows
FROM unnest(%(ids)s::bigint[]) AS w (id)
LEFT JOIN collect.task AS t ON t.id = w.id
WHERE t.id IS NULL OR t.status IN ('COMPLETED', 'PARTIAL', 'DEAD', 'CANCELLED')
