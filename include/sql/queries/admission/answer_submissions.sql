-- Records the answer to request ids that duplicate a task: that task. Primary key.
UPDATE collect.submission AS s
SET task_id = a.task_id, duplicate = true
FROM unnest(%(request_ids)s::text[], %(task_ids)s::bigint[]) AS a (request_id, task_id)
WHERE s.request_id = a.request_id
