-- What a shard group has not begun with of a task whose host is held, or that an outage of our own keeps it from:
-- settling sees from it that nothing has failed and nothing was lost. Index shard_by_group.
UPDATE collect.shard AS s
SET error = %(error)s
FROM collect.task AS t
WHERE
    s.run_id = %(run_id)s AND s.group_no = %(group_no)s AND s.task_id = %(task_id)s AND s.status = 'PENDING'
    AND t.id = s.task_id AND t.attempt = %(attempt)s AND t.status IN ('DISPATCHED', 'RUNNING')
