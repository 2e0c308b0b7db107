-- Those that waited for a survivor end as the work has ended, each with its own result. The caller holds their locks
-- (lock_merged). Primary key.
UPDATE collect.task AS t
SET
    status = %(status)s, reason = %(reason)s, moved_by = %(actor)s, result = m.result, error = %(error)s,
    progress_at = now(), finished_at = clock_timestamp()
FROM unnest(%(task_ids)s::bigint[], %(results)s::jsonb[]) AS m (id, result)
WHERE t.id = m.id AND t.merged_into = %(survivor)s AND t.status = 'MERGED'
RETURNING t.id
