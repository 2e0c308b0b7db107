-- Whether a task waits in a lane that is placed though every node is busy: it has begun, or waited for long. Index task_open.
SELECT count(*) > 0 AS presses FROM collect.task
WHERE
    lane = %(lane)s AND status IN ('QUEUED', 'RETRYING') AND coalesce(due_at, now()) <= now()
    AND (attempt > 0 OR aged_from < now() - make_interval(secs => %(press_after_s)s))
