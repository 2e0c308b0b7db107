-- Locks the dedup keys of tasks in key order, as admissions take theirs: neither waits for what the other waits for.
-- Index dedup_task.
SELECT key FROM collect.dedup WHERE task_id = ANY(%(task_ids)s::bigint[]) ORDER BY key FOR UPDATE
