-- Records the first answer to each request id. Primary key.
UPDATE collect.submission AS s
SET task_id = a.task_id, duplicate = a.duplicate
FROM unnest(%(request_ids)s::text[], %(task_ids)s::bigint[], %(duplicates)s::boolean[])
    AS a (request_id, task_id, duplicate)
WHERE s.request_id = a.request_id
