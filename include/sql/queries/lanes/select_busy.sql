-- Of messages that lock_named has not returned those that are of their task's generation all the same: somebody else has
-- the task in hand. Locks nothing. Generations are whatever a message says, so bigint. Primary key.
SELECT t.id
FROM collect.task AS t
JOIN unnest(%(task_ids)s::bigint[], %(generations)s::bigint[]) AS m (task_id, generation)
    ON m.task_id = t.id AND m.generation = t.generation
WHERE t.status IN ('QUEUED', 'RETRYING')
