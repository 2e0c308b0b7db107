-- First answers of known request ids, with the task's present state. Primary keys of both.
SELECT s.request_id, s.task_id, s.duplicate, t.status, t.merged_into, t.priority, t.lane, t.params
FROM collect.submission AS s
JOIN collect.task AS t ON t.id = s.task_id
WHERE s.request_id = ANY(%(request_ids)s)
