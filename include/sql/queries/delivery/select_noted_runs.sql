-- Runs whose notes Airflow does not show yet, the oldest first. Index run_note_undelivered.
SELECT run_id, min(dag_id) AS dag_id
FROM collect.run_note
WHERE delivered_at IS NULL AND written_at < now() - make_interval(secs => %(older_than_s)s)
GROUP BY run_id
ORDER BY min(written_at)
LIMIT %(most)s
