-- Returns who swapped this target last, its row made when it is missing, and locked until the transaction ends: of
-- two tasks that swap at once the second waits, then sees the first. Uses landing_target_pkey. The update changes
-- nothing: DO NOTHING would return no row and lock none.
INSERT INTO collect.landing_target AS t (table_name)
VALUES (%(table_name)s)
ON CONFLICT (table_name) DO UPDATE SET table_name = t.table_name
RETURNING t.swapped_task_id
