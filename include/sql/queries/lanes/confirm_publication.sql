-- Records that the broker holds these generations. Primary key. Safe twice and out of order: never lowers.
-- Waits for nobody: a claim locks tasks in the order of its queue, and two that wait for each other are a deadlock. Who
-- has a row in hand has its message in hand (claim_tasks records that), or is publishing a newer generation.
WITH named AS (
    SELECT t.id, m.generation
    FROM collect.task AS t
    JOIN unnest(%(task_ids)s::bigint[], %(generations)s::int[]) AS m (task_id, generation) ON m.task_id = t.id
    WHERE t.confirmed_generation < m.generation AND t.generation >= m.generation
    ORDER BY t.id
    FOR NO KEY UPDATE OF t SKIP LOCKED
)
UPDATE collect.task AS t
SET confirmed_generation = named.generation, in_queue_at = now()
FROM named
WHERE t.id = named.id
