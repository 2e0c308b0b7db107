-- Records that Airflow shows these notes. Primary key; safe twice.
UPDATE collect.run_note AS n
SET delivered_at = now()
FROM unnest(%(task_ids)s::bigint[], %(attempts)s::int[]) AS m (task_id, attempt)
WHERE n.task_id = m.task_id AND n.attempt = m.attempt AND n.delivered_at IS NULL
