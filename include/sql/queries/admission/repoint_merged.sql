-- Those that wait for a task which has just been merged itself wait for its survivor. The caller holds the lock of what
-- they waited for, without which nobody touches them. Index task_merged_into.
UPDATE collect.task AS t
SET merged_into = p.survivor, reason = 'merged into task ' || p.survivor, moved_by = %(actor)s
FROM unnest(%(survivors)s::bigint[], %(merged)s::bigint[]) AS p (survivor, merged)
WHERE t.merged_into = p.merged AND t.status = 'MERGED'
