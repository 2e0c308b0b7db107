-- Tables aside of tasks that have ended and will not go on from them, of all tasks or of these: a cancel, or a process that
-- was killed, has left them. Never those of a DEAD task, which a redrive goes on from. The task's id ends a table's name (aside_name).
-- Reads the catalogue, and task_pkey for each table aside, of which there are few.
SELECT
    c.relname AS name,
    t.id AS task_id
FROM pg_class AS c
JOIN collect.task AS t ON t.id = substring(c.relname FROM '__([0-9]{1,18})$')::bigint
WHERE
    c.relnamespace = 'landing_aside'::regnamespace AND c.relkind = 'r'
    AND (%(task_ids)s::bigint[] IS NULL OR t.id = ANY(%(task_ids)s::bigint[]))
    AND t.status IN ('CANCELLED', 'COMPLETED', 'PARTIAL', 'MERGED')
ORDER BY t.id
