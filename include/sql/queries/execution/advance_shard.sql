-- Ends every landing transaction: the shard's progress, committed with its rows. Primary key; the lock is held since
-- fence_shard. Rows that another declaration than the one before has landed end what is remembered of its pages
-- (landing_target_pkey; most tables have no such memory, and nothing is written).
WITH ended AS (
    UPDATE collect.landing_target
    SET epoch = epoch + 1, version = %(version)s::bytea
    WHERE table_name = %(table_name)s AND %(landed)s > 0 AND version IS DISTINCT FROM %(version)s::bytea
)
UPDATE collect.shard
SET
    position = %(position)s,
    pages = pages + 1,
    rows_fetched = rows_fetched + %(fetched)s,
    rows_landed = rows_landed + %(landed)s,
    bad_rows = bad_rows + %(bad)s,
    rows_repeated = rows_repeated + %(repeated)s,
    landed_since = coalesce(%(landed_since)s::timestamptz, landed_since),
    unchanged_pages = unchanged_pages + %(unchanged_pages)s,
    unchanged_rows = unchanged_rows + %(unchanged_rows)s,
    bytes = bytes + %(bytes)s,
    http_retries = http_retries + %(http_retries)s,
    fetch_s = fetch_s + %(fetch_s)s,
    land_s = land_s + %(land_s)s,
    source_total = coalesce(%(source_total)s, source_total),
    progress_at = clock_timestamp(),
    status = CASE WHEN %(last)s THEN 'DONE' ELSE status END,
    finished_at = CASE WHEN %(last)s THEN clock_timestamp() END
WHERE task_id = %(task_id)s AND shard_no = %(shard_no)s AND fencing_token = %(token)s AND status = 'RUNNING'
