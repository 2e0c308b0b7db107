-- Adds how fast an attempt's shards were to what is known of its source: the newest ones first, a fixed number of them.
-- Time is what was spent on fetching and landing, not what lay between two attempts. Primary keys.
WITH recent AS (
    SELECT coalesce(units, rows_fetched) / (fetch_s + land_s) AS rate, finished_at, shard_no
    FROM collect.shard
    WHERE
        task_id = %(task_id)s AND attempt = %(attempt)s AND status = 'DONE'
        AND rows_fetched > 0 AND fetch_s + land_s > 0
    ORDER BY finished_at DESC, shard_no DESC
    LIMIT %(history)s
),

fresh AS (
    SELECT array_agg(rate ORDER BY finished_at DESC, shard_no DESC) AS rates FROM recent
)

INSERT INTO collect.source_pace AS p (source, unit, rates)
SELECT %(source)s, %(unit)s, rates FROM fresh
WHERE rates IS NOT NULL
ON CONFLICT (source) DO UPDATE
SET
    rates = CASE WHEN p.unit = excluded.unit THEN (excluded.rates || p.rates)[1:%(history)s::int] ELSE excluded.rates END,
    shard_size = CASE WHEN p.unit = excluded.unit THEN p.shard_size END,
    unit = excluded.unit,
    updated_at = now()
