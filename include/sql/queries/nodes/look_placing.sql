-- A task that waits to be placed on a node, or runs on one: then the nodes' figures count. Index task_open.
SELECT id FROM collect.task
WHERE status IN ('QUEUED', 'HELD', 'CLAIMED', 'DISPATCHED', 'RUNNING', 'RETRYING', 'DISPATCH_FAILED')
ORDER BY status
LIMIT 1
