-- The size that a source's newest task is cut by. Primary key; of two at once the later one counts. What was measured
-- in another unit says nothing any more.
INSERT INTO collect.source_pace AS p (source, unit, shard_size)
VALUES (%(source)s, %(unit)s, %(shard_size)s)
ON CONFLICT (source) DO UPDATE
SET
    shard_size = excluded.shard_size, unit = excluded.unit, updated_at = now(),
    rates = CASE WHEN p.unit = excluded.unit THEN p.rates ELSE '{}' END
WHERE p.shard_size IS DISTINCT FROM excluded.shard_size OR p.unit <> excluded.unit
