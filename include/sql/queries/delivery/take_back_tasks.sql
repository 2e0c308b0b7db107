-- Redriven tasks that nobody has claimed since are DEAD again, for the reason they were; their message is stale. Those of
-- this statement's letters whose task was claimed are not touched. The caller holds the tasks' locks (lock_letter_tasks).
-- Primary keys.
UPDATE collect.task AS t
SET
    status = 'DEAD', reason = d.error_message, moved_by = %(actor)s, retry_count = d.retry_count,
    confirmed_generation = t.generation, progress_at = now(), finished_at = clock_timestamp()
FROM collect.dead_letter AS d
WHERE
    d.id = ANY(%(ids)s::bigint[])
    AND d.state = 'REDRIVEN'
    AND t.id = d.task_id
    AND t.status IN ('QUEUED', 'HELD')
    AND t.attempt = d.redriven_attempt
RETURNING t.id, d.id AS letter_id, t.source, t.lane
