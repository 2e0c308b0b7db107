-- Survivors ask for less, after a caller has gone. The caller holds their locks (lock_survivors). Primary key.
UPDATE collect.task AS t
SET params = n.params
FROM unnest(%(task_ids)s::bigint[], %(params)s::jsonb[]) AS n (id, params)
WHERE t.id = n.id AND t.status IN ('QUEUED', 'HELD') AND t.attempt = 0
