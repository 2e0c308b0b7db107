-- Whether a task waits in a lane that has begun already: it is placed though every node is busy. Index task_open.
SELECT count(*) > 0 AS begun FROM collect.task
WHERE lane = %(lane)s AND attempt > 0 AND status IN ('QUEUED', 'RETRYING') AND coalesce(due_at, now()) <= now()
