-- The outbox: generations that the broker has not confirmed, the oldest first. Older than a moment, so that it does not
-- race the publisher that is at it. Index task_outbox, in its order: OFFSET 0 keeps the condition on the status out of
-- the planner's sight, which takes it for the better one and reads everything that waits.
SELECT u.id, u.generation, u.priority, u.lane, u.retry_count, extract(EPOCH FROM u.due_at - now())::float8 AS due_in_s
FROM (
    SELECT id, status, generation, priority, lane, retry_count, due_at, queued_at FROM collect.task
    WHERE
        confirmed_generation < generation AND finished_at IS NULL
        AND queued_at < now() - make_interval(secs => %(older_than_s)s)
    ORDER BY queued_at
    OFFSET 0
) AS u
WHERE u.status IN ('QUEUED', 'RETRYING')
ORDER BY u.queued_at
LIMIT %(limit)s
