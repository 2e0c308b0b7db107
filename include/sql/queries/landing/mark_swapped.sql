-- Says that this task's rows are the target's now. Uses landing_target_pkey. The caller holds the row (lock_target).
UPDATE collect.landing_target
SET swapped_task_id = %(task_id)s, swapped_at = now()
WHERE table_name = %(table_name)s
