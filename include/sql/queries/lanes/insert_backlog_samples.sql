-- Writes the samples of this minute. Unique by minute, lane and source: the second of two that run at once writes none.
INSERT INTO collect.backlog_sample (at, lane, source, depth, oldest_s, arrivals, completions)
SELECT date_trunc('minute', now()), s.lane, s.source, s.depth, s.oldest_s, s.arrivals, s.completions
FROM unnest(
    %(lanes)s::text[],
    %(sources)s::text[],
    %(depths)s::integer[],
    %(oldest_s)s::double precision[],
    %(arrivals)s::integer[],
    %(completions)s::integer[]
) AS s (lane, source, depth, oldest_s, arrivals, completions)
ON CONFLICT DO NOTHING
