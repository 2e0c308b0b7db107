-- The shortest waiting after which any source's own formula lets a waiting task age; none: nobody has one of its own.
-- Index task_ageing finds what waits.
SELECT min((v.definition #>> '{priority_formula,ageing,first_after_s}')::float8) AS least_s
FROM collect.source_version AS v
WHERE
    v.definition #>> '{priority_formula,ageing,first_after_s}' IS NOT NULL
    AND EXISTS (
        SELECT FROM collect.task AS t
        WHERE t.source_version = v.hash AND t.status IN ('QUEUED', 'HELD', 'RETRYING')
    )
