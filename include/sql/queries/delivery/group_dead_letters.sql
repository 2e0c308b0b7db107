-- Dead letters by fingerprint, the largest group first; the example is the newest. Primary key.
SELECT
    d.fingerprint,
    min(d.error_class) AS error_class,
    min(d.pattern) AS pattern,
    count(*) AS letters,
    min(d.failed_at) AS first_at,
    max(d.failed_at) AS last_at,
    array_remove(array_agg(DISTINCT d.source), NULL) AS sources,
    max(d.id) AS example_id,
    max(d.task_id) AS example_task_id,
    (array_agg(d.error_message ORDER BY d.id DESC))[1] AS example_message
FROM collect.dead_letter AS d
WHERE d.id = ANY(%(ids)s::bigint[])
GROUP BY d.fingerprint
ORDER BY count(*) DESC, max(d.id) DESC
LIMIT %(limit)s
