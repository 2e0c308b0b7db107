-- All open dead letters by fingerprint, the largest group first; the example is the newest. Reads a row for each group and
-- source, and of each group that is told of its first and last letter: indexes dead_letter_open, dead_letter_open_failed.
WITH counted AS (
    SELECT fingerprint, source, sum(letters) AS letters FROM collect.dead_group_change
    GROUP BY fingerprint, source
    HAVING sum(letters) > 0
),
largest AS (
    SELECT
        fingerprint, sum(letters)::bigint AS letters, array_remove(array_agg(source), NULL) AS sources
    FROM counted
    GROUP BY fingerprint
    ORDER BY sum(letters) DESC, fingerprint
    LIMIT %(limit)s
)
SELECT
    g.fingerprint, example.error_class, example.pattern, g.letters, oldest.failed_at AS first_at,
    newest.failed_at AS last_at, g.sources, example.id AS example_id, example.task_id AS example_task_id,
    example.error_message AS example_message
FROM largest AS g
CROSS JOIN LATERAL (
    SELECT d.id, d.task_id, d.error_class, d.pattern, d.error_message FROM collect.dead_letter AS d
    WHERE d.state = 'OPEN' AND d.fingerprint = g.fingerprint
    ORDER BY d.id DESC LIMIT 1
) AS example
CROSS JOIN LATERAL (
    SELECT d.failed_at FROM collect.dead_letter AS d
    WHERE d.state = 'OPEN' AND d.fingerprint = g.fingerprint
    ORDER BY d.failed_at LIMIT 1
) AS oldest
CROSS JOIN LATERAL (
    SELECT d.failed_at FROM collect.dead_letter AS d
    WHERE d.state = 'OPEN' AND d.fingerprint = g.fingerprint
    ORDER BY d.failed_at DESC LIMIT 1
) AS newest
ORDER BY g.letters DESC, example.id DESC
