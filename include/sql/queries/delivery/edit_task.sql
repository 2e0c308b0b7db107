-- Gives a DEAD task another request or priority, as a new generation, so that its log tells of it; a request that has
-- changed is counted and split anew. The caller holds its lock (lock_letter_tasks). Primary key.
UPDATE collect.task
SET
    params = %(params)s, path = %(path)s, priority = %(priority)s, lane = %(lane)s, dedup_key = %(dedup_key)s,
    source_version = %(source_version)s, max_retries = %(max_retries)s, merge_key = NULL,
    shards_total = CASE WHEN %(changed)s THEN NULL ELSE shards_total END,
    total_rows = CASE WHEN %(changed)s THEN NULL ELSE total_rows END,
    generation = generation + 1, confirmed_generation = generation + 1, moved_by = %(actor)s,
    reason = %(reason)s, progress_at = now()
WHERE id = %(task_id)s AND status = 'DEAD'
RETURNING id
