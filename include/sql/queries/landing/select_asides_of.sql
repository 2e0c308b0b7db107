-- The tables aside of these tasks. The task's id ends a table's name (aside_name). Reads the catalogue only.
SELECT c.relname AS name
FROM pg_class AS c
WHERE
    c.relnamespace = 'landing_aside'::regnamespace AND c.relkind = 'r'
    AND substring(c.relname FROM '__([0-9]{1,18})$')::bigint = ANY(%(task_ids)s::bigint[])
ORDER BY c.relname
