-- Tasks that wait for a survivor which has been taken back are DEAD with it. The caller holds the survivors' locks. Locks
-- in id order. Index task_merged_into.
WITH members AS (
    SELECT id FROM collect.task
    WHERE merged_into = ANY(%(task_ids)s::bigint[]) AND status = 'MERGED'
    ORDER BY id
    FOR NO KEY UPDATE
)
UPDATE collect.task AS t
SET
    status = 'DEAD', reason = 'task ' || t.merged_into || ', which collects for it, was taken back',
    moved_by = %(actor)s, progress_at = now(), finished_at = clock_timestamp()
FROM members AS m
WHERE t.id = m.id
RETURNING t.id
