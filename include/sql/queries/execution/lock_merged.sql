-- Tasks that wait for a survivor, locked in id order. The caller holds the survivor's lock, without which nobody moves
-- them; a survivor has the lowest id of all, so locks are taken in the order of ids here too. Index task_merged_into.
SELECT id, params FROM collect.task
WHERE merged_into = %(task_id)s AND status = 'MERGED'
ORDER BY id
FOR NO KEY UPDATE
