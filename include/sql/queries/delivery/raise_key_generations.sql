-- Says on a key which generation of its holder took it: see the column. The caller has just taken the keys, so it holds
-- their locks, and those of the tasks. Primary key.
UPDATE collect.dedup AS d
SET generation = t.generation + 1
FROM collect.task AS t
WHERE t.id = d.task_id AND t.id = ANY(%(task_ids)s::bigint[]) AND d.key = ANY(%(keys)s::bytea[])
