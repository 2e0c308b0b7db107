-- Records that the broker holds these generations. Primary key. Safe twice and out of order: never lowers.
UPDATE collect.task AS t
SET confirmed_generation = m.generation
FROM unnest(%(task_ids)s::bigint[], %(generations)s::int[]) AS m (task_id, generation)
WHERE
    t.id = m.task_id
    AND t.confirmed_generation < m.generation
    AND t.generation >= m.generation
