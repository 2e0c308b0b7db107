-- Slows the admission of sources, and lets go of all others. A brake that is there keeps its tokens. Primary key; only
-- the holder of the backlog's lock writes; admissions take tokens in between, one row at a time.
WITH released AS (
    DELETE FROM collect.brake
    WHERE NOT source = ANY(%(sources)s::text[])
)

INSERT INTO collect.brake AS b (source, rule, reason, retry_after_s, per_s)
SELECT w.source, w.rule, w.reason, w.retry_after_s, w.per_s
FROM unnest(
    %(sources)s::text[],
    %(rules)s::text[],
    %(reasons)s::text[],
    %(retry_after_s)s::double precision[],
    %(per_s)s::double precision[]
) AS w (source, rule, reason, retry_after_s, per_s)
ORDER BY w.source
ON CONFLICT (source) DO UPDATE
SET
    rule = excluded.rule, reason = excluded.reason, retry_after_s = excluded.retry_after_s, per_s = excluded.per_s
