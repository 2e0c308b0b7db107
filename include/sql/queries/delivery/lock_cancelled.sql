-- Tasks that are to be cancelled, and the survivors that merged ones among them wait for, locked in id order. Primary
-- key. What these rows say is read again by select_callers: a lock that was waited for shows them as they were before.
SELECT t.id FROM collect.task AS t
WHERE
    t.id = ANY(%(task_ids)s::bigint[])
    OR t.id IN (SELECT m.merged_into FROM collect.task AS m WHERE m.id = ANY(%(task_ids)s::bigint[]))
ORDER BY t.id
FOR NO KEY UPDATE
