-- Depths of the last minutes, oldest first: of the lanes, or of the sources over all lanes. Index backlog_sample_once.
SELECT
    CASE WHEN %(by_source)s::boolean THEN source ELSE lane END AS scope,
    at,
    sum(depth)::integer AS depth
FROM collect.backlog_sample
WHERE at > now() - make_interval(mins => %(minutes)s) AND (source IS NOT NULL) = %(by_source)s::boolean
GROUP BY 1, 2
ORDER BY 1, 2
