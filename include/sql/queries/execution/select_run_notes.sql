-- What Airflow has to show of a run, the dead tasks first; `tasks` is how many the run had, as far as they still name
-- it. Indexes run_note_run, task_run, dead_letter_once.
SELECT
    n.task_id, n.attempt, n.dag_id, n.status, n.reason, n.delivered_at IS NOT NULL AS delivered, t.source,
    (
        SELECT max(d.id) FROM collect.dead_letter AS d
        WHERE d.task_id = n.task_id
    ) AS letter_id,
    (SELECT count(*) FROM collect.task AS m WHERE m.run_id = n.run_id) AS tasks
FROM collect.run_note AS n
JOIN collect.task AS t ON t.id = n.task_id
WHERE n.run_id = %(run_id)s
ORDER BY n.status, n.task_id
