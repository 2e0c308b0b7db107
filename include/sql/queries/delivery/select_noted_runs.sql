-- Runs whose notes Airflow does not show yet and that may be tried now, the one first that has been due for longest: what
-- is tried in vain comes after what has not been tried. A run is due with its first note. Index run_note_undelivered.
SELECT
    run_id, min(dag_id) AS dag_id,
    extract(EPOCH FROM now() - max(written_at))::float8 AS waits_s
FROM collect.run_note
WHERE
    delivered_at IS NULL AND written_at < now() - make_interval(secs => %(older_than_s)s)
    AND (next_at IS NULL OR next_at <= now())
GROUP BY run_id
ORDER BY min(coalesce(next_at, written_at)), run_id
LIMIT %(most)s
