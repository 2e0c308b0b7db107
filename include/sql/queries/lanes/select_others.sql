-- Of messages that lock_named has not returned: their tasks, and whether a message is of its task's generation all the
-- same, because somebody else has the task in hand. Locks nothing. Generations are whatever a message says, so bigint.
-- Primary key.
SELECT
    t.id,
    t.generation = m.generation AND t.status IN ('QUEUED', 'RETRYING') AS busy
FROM collect.task AS t
JOIN unnest(%(task_ids)s::bigint[], %(generations)s::bigint[]) AS m (task_id, generation)
    ON m.task_id = t.id
