-- Tasks with those that wait for them: what a cancel decides by. The caller holds their locks (lock_cancelled). Primary
-- key, index task_merged_into.
SELECT
    t.id, t.status, t.merged_into, t.withdrawn_at IS NOT NULL AS withdrawn,
    array(
        SELECT m.id FROM collect.task AS m
        WHERE m.merged_into = t.id AND m.status = 'MERGED'
        ORDER BY m.id
    ) AS waiting
FROM collect.task AS t
WHERE t.id = ANY(%(task_ids)s::bigint[])
ORDER BY t.id
