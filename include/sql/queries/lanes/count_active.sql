-- How many tasks of each source are under way. Index task_open.
SELECT source, count(*) AS active
FROM collect.task
WHERE status IN ('CLAIMED', 'DISPATCHED', 'RUNNING') AND source = ANY(%(sources)s)
GROUP BY source
