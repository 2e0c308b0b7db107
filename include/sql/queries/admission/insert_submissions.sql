-- Registers request ids; a concurrent registration of the same id is waited for and then counts as known.
-- In the order of the ids, so that two batches cannot wait for each other. Primary key.
INSERT INTO collect.submission (request_id)
SELECT r.request_id
FROM unnest(%(request_ids)s::text[]) WITH ORDINALITY AS r (request_id, n)
ORDER BY r.n
ON CONFLICT (request_id) DO NOTHING
RETURNING request_id
