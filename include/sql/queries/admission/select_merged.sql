-- What those ask for that wait for some survivors. Index task_merged_into.
SELECT merged_into, id, params FROM collect.task
WHERE merged_into = ANY(%(task_ids)s::bigint[]) AND status = 'MERGED'
ORDER BY id
