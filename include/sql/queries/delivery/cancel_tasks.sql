-- Cancels tasks that have not ended. Locks them in id order. Not FOR UPDATE, which would also keep out the foreign keys
-- of rows about the task: a landing writes its trace while we wait for its shard. The caller's transaction goes on with
-- fence_tasks: a statement of its own, since this one does not see shards that were planned while it waited for a lock.
-- Primary key. Returns what moved.
WITH chosen AS (
    SELECT id, status AS from_status FROM collect.task
    WHERE
        id = ANY(%(task_ids)s::bigint[])
        AND status IN (
            'QUEUED', 'HELD', 'MERGED', 'CLAIMED', 'DISPATCHED', 'RUNNING', 'RETRYING', 'DISPATCH_FAILED'
        )
    ORDER BY id
    FOR NO KEY UPDATE
)
UPDATE collect.task AS t
SET
    status = 'CANCELLED', reason = %(reason)s, moved_by = %(actor)s, due_at = NULL, groups_reserved = 0,
    -- Nothing of it is left to publish.
    confirmed_generation = t.generation, progress_at = now(), finished_at = clock_timestamp()
FROM chosen, collect.source_version AS v
WHERE t.id = chosen.id AND v.hash = t.source_version
RETURNING t.id, t.source, t.lane, t.run_id, chosen.from_status, v.definition #>> '{target,table}' AS target_table,
    v.definition #>> '{target,disposition}' AS disposition
