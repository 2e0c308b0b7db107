-- DEAD tasks wait again, as a new generation with all their retries. What landed stays, and so does the attempt's number;
-- one that was never claimed is not merged any more, so that it can be taken back alone. The caller holds their locks
-- (lock_letter_tasks). Primary key. Returns what to publish.
UPDATE collect.task
SET
    status = 'QUEUED', reason = %(reason)s, moved_by = %(actor)s, generation = generation + 1, retry_count = 0,
    lost_count = 0, due_at = NULL, groups_reserved = 0, queued_at = now(), progress_at = now(), finished_at = NULL,
    result = NULL, merge_key = NULL
WHERE id = ANY(%(task_ids)s::bigint[]) AND status = 'DEAD'
RETURNING id, generation, priority, lane, retry_count, attempt
