-- Registers request ids with the tasks that they are meant to get; a concurrent registration of the same id is waited
-- for and then counts as known. In the order of the ids, so that two batches cannot wait for each other. Primary key.
INSERT INTO collect.submission (request_id, task_id)
SELECT r.request_id, r.task_id
FROM unnest(%(request_ids)s::text[], %(task_ids)s::bigint[]) WITH ORDINALITY AS r (request_id, task_id, n)
ORDER BY r.n
ON CONFLICT (request_id) DO NOTHING
RETURNING request_id
