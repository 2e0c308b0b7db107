-- A task's shards begin again: the rows that they have landed are gone. Whoever still holds one is fenced off. What it
-- costs to fetch them is counted anew, with the rows. The caller holds the task's lock. Returns how many had landed
-- pages. Prefixes of primary keys.
WITH begun AS (
    SELECT count(*) FILTER (WHERE status = 'DONE' OR pages > 0) AS shards FROM collect.shard WHERE task_id = %(task_id)s
),

restarted AS (
    UPDATE collect.shard
    SET
        status = 'PENDING', fencing_token = fencing_token + 1, position = NULL, pages = 0, rows_fetched = 0,
        rows_landed = 0, bad_rows = 0, rows_repeated = 0, unchanged_pages = 0, unchanged_rows = 0, bytes = 0, http_retries = 0,
        fetch_s = 0, land_s = 0, source_total = NULL, restarts = 0, error = NULL, started_at = NULL, finished_at = NULL,
        progress_at = now()
    WHERE task_id = %(task_id)s
),

forgotten AS (
    DELETE FROM collect.page_fingerprint WHERE task_id = %(task_id)s
)

SELECT shards AS begun FROM begun
