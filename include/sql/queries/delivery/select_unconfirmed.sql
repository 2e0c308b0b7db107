-- The outbox: generations that the broker has not confirmed. Older than a moment, so that it does not race the
-- publisher that is at it. Index task_unconfirmed.
SELECT id, generation, priority, lane, retry_count, extract(EPOCH FROM due_at - now())::float8 AS due_in_s
FROM collect.task
WHERE
    confirmed_generation < generation
    AND status IN ('QUEUED', 'RETRYING')
    AND queued_at < now() - make_interval(secs => %(older_than_s)s)
ORDER BY queued_at
LIMIT %(limit)s
