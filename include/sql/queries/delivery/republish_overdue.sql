-- Waiting tasks whose message must be gone: published again as their next generation. RETRYING a minute past due;
-- QUEUED for longer than the lane's message TTL; QUEUED for a minute while the lane's queue is empty, unacked included.
-- Index task_open. Safe twice: the second pass finds queued_at and due_at moved.
UPDATE collect.task AS t
SET
    generation = t.generation + 1, queued_at = now(), moved_by = %(actor)s, progress_at = now(),
    due_at = CASE WHEN t.status = 'RETRYING' THEN now() END
WHERE
    (
        t.status = 'RETRYING' AND t.due_at < now() - make_interval(secs => %(grace_s)s)
        OR t.status = 'QUEUED' AND t.lane = %(lane)s AND t.queued_at < now() - make_interval(secs => %(ttl_s)s)
        OR t.status = 'QUEUED' AND t.lane = %(lane)s AND %(queue_empty)s
        AND t.queued_at < now() - make_interval(secs => %(grace_s)s)
    )
    AND t.lane = %(lane)s
RETURNING t.id, t.generation, t.priority, t.lane, t.retry_count
