-- Waiting tasks whose message must be gone: published again as their next generation.
-- RETRYING a minute past due, once: on its way up and down the ladder a message can be lost. After that, as for QUEUED:
-- waiting longer than the lane's message TTL, or a minute while the lane's queue is empty, unacked included. Else a
-- retry behind a backlog would get a new message every minute, each at the end of the queue: it would never be reached.
-- `queued_at` equal to `due_at` says that this statement has published it since it was due. Rows that another has in hand are
-- skipped. Index task_open. Safe twice: the second pass finds queued_at and due_at moved.
WITH overdue AS (
    SELECT id FROM collect.task
    WHERE
        lane = %(lane)s
        AND (
            status = 'RETRYING' AND queued_at <> due_at AND due_at < now() - make_interval(secs => %(grace_s)s)
            OR status IN ('QUEUED', 'RETRYING') AND (
                greatest(queued_at, due_at) < now() - make_interval(secs => %(ttl_s)s)
                OR %(queue_empty)s AND greatest(queued_at, due_at) < now() - make_interval(secs => %(grace_s)s)
            )
        )
    ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE collect.task AS t
SET
    generation = t.generation + 1, queued_at = now(), moved_by = %(actor)s, progress_at = now(),
    due_at = CASE WHEN t.status = 'RETRYING' THEN now() END
FROM overdue
WHERE t.id = overdue.id
RETURNING t.id, t.generation, t.priority, t.lane, t.retry_count
