-- Tasks that died with their survivor wait for it again. The caller holds the survivors' locks, without which nobody moves
-- them. Locks in id order. Index task_merged_into.
WITH members AS (
    SELECT id FROM collect.task
    WHERE merged_into = ANY(%(task_ids)s::bigint[]) AND status = 'DEAD'
    ORDER BY id
    FOR NO KEY UPDATE
)
UPDATE collect.task AS t
SET
    status = 'MERGED', reason = 'merged into task ' || t.merged_into, moved_by = %(actor)s, result = NULL, error = NULL,
    progress_at = now(), finished_at = NULL
FROM members AS m
WHERE t.id = m.id
RETURNING t.id, t.dedup_key
