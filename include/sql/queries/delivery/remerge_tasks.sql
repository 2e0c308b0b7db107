-- Tasks that died with their survivor wait for it again, as a new generation, which their dedup key knows. The caller
-- holds their locks (lock_dead_members). Primary key.
UPDATE collect.task AS t
SET
    status = 'MERGED', reason = 'merged into task ' || t.merged_into, moved_by = %(actor)s, result = NULL, error = NULL,
    generation = t.generation + 1, confirmed_generation = t.generation + 1, progress_at = now(), finished_at = NULL
WHERE t.id = ANY(%(task_ids)s::bigint[]) AND t.status = 'DEAD'
