-- Takes as many tokens of a slowed source as there are, up to what is wanted: a bucket that fills at per_s and holds
-- what comes in retry_after_s, one at least. One row, locked by the update: two that take at once share. Primary key.
WITH filled AS (
    SELECT
        source,
        least(
            greatest(1, per_s * retry_after_s),
            tokens + per_s * greatest(0, extract(EPOCH FROM clock_timestamp() - filled_at)::double precision)
        ) AS tokens
    FROM collect.brake
    WHERE source = %(source)s AND per_s IS NOT NULL
    FOR NO KEY UPDATE
)

UPDATE collect.brake AS b
SET tokens = f.tokens - least(%(wanted)s::integer, floor(f.tokens)), filled_at = clock_timestamp()
FROM filled AS f
WHERE b.source = f.source
RETURNING least(%(wanted)s::integer, floor(f.tokens))::integer AS taken
