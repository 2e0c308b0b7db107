-- Which dead letters of tasks exist. Primary key.
SELECT id FROM collect.dead_letter WHERE id = ANY(%(ids)s::bigint[]) AND task_id IS NOT NULL
