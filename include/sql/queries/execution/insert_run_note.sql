-- Keeps what Airflow has to show of an attempt's run, in the transaction that moved the task: nothing is forgotten. How the
-- work ended, which of a survivor that its own caller has cancelled is not how the task did. Once an attempt; primary
-- keys. The caller holds the task's lock.
INSERT INTO collect.run_note (task_id, attempt, dag_id, run_id, status, reason)
SELECT t.id, t.attempt, t.dag_id, t.run_id, %(status)s, %(reason)s
FROM collect.task AS t
WHERE t.id = %(task_id)s AND t.run_id IS NOT NULL AND t.dag_id IS NOT NULL
ON CONFLICT (task_id, attempt) DO NOTHING
