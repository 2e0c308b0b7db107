-- The tasks of a run that are claimed and not dispatched: what the run is for. Index task_run.
SELECT id, attempt, priority, nodes, source FROM collect.task
WHERE run_id = %(run_id)s AND status = 'CLAIMED'
ORDER BY priority DESC, id
