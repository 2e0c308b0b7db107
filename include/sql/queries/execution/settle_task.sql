-- Moves a task to where its attempt has brought it; one that has ended well needs no fingerprints of its pages any more.
-- Primary keys; the caller holds the task's lock.
WITH forgotten AS (
    DELETE FROM collect.page_fingerprint
    WHERE task_id = %(task_id)s AND %(status)s::text IN ('COMPLETED', 'PARTIAL')
)

UPDATE collect.task
SET
    status = %(status)s, reason = %(reason)s, moved_by = %(actor)s, result = %(result)s, error = %(error)s,
    generation = generation + CASE WHEN %(again)s THEN 1 ELSE 0 END,
    -- A task that is set aside has no message: whoever lets it go publishes it.
    confirmed_generation = CASE
        WHEN %(status)s::text IN ('HELD', 'DISPATCH_FAILED') THEN generation + 1 ELSE confirmed_generation
    END,
    held_for = NULL,
    retry_count = retry_count + %(retries)s,
    priority = %(priority)s,
    lane = %(lane)s,
    lost_count = lost_count + %(losses)s,
    refused_nodes = (SELECT coalesce(array_agg(DISTINCT r.node), '{}') FROM unnest(refused_nodes || %(refused)s::text[]) AS r (node)),
    dispatch_failures = dispatch_failures + (%(status)s = 'DISPATCH_FAILED')::int,
    due_at = CASE WHEN %(delay_s)s::float8 > 0 THEN now() + make_interval(secs => %(delay_s)s::float8) END,
    queued_at = CASE WHEN %(again)s THEN now() ELSE queued_at END,
    -- It waits from when it is due.
    aged_from = CASE
        WHEN %(again)s THEN now() + make_interval(secs => greatest(0, %(delay_s)s::float8)) ELSE aged_from
    END,
    groups_reserved = 0,
    progress_at = now(),
    finished_at = CASE WHEN %(again)s THEN NULL ELSE clock_timestamp() END
WHERE id = %(task_id)s AND attempt = %(attempt)s
RETURNING id, generation, priority, lane, retry_count
