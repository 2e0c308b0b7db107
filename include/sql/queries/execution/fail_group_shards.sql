-- A shard group cannot run a task's shards: they fail, and whoever holds one is fenced off. Only while the task is at this
-- attempt, in this run. Primary key prefix.
UPDATE collect.shard AS s
SET
    status = 'FAILED', error = %(error)s, fencing_token = s.fencing_token + 1, progress_at = now(), finished_at = now()
FROM collect.task AS t
WHERE
    s.task_id = %(task_id)s AND s.run_id = %(run_id)s AND s.group_no = %(group_no)s AND s.status <> 'DONE'
    AND t.id = s.task_id AND t.attempt = %(attempt)s AND t.status IN ('DISPATCHED', 'RUNNING')
