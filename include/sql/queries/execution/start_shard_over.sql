-- A shard begins anew, once: the place where it was to go on is not there any more. Its rows are cleared with the first
-- page that lands, since it has none now. No row: it has begun anew before, or the caller has been fenced off. Primary
-- keys, page_fingerprint's by its prefix.
WITH restarted AS (
    UPDATE collect.shard
    SET
        position = NULL, pages = 0, rows_fetched = 0, rows_landed = 0, bad_rows = 0, rows_repeated = 0, unchanged_pages = 0,
        unchanged_rows = 0, source_total = NULL, restarts = restarts + 1, progress_at = now()
    WHERE
        task_id = %(task_id)s AND shard_no = %(shard_no)s
        AND fencing_token = %(token)s AND status = 'RUNNING' AND restarts = 0
    RETURNING task_id, shard_no
),

forgotten AS (
    DELETE FROM collect.page_fingerprint AS f
    USING restarted AS r
    WHERE f.task_id = r.task_id AND f.shard_no = r.shard_no
)

SELECT shard_no FROM restarted
