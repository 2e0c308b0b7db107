-- Who is connected, and whether tasks and the log of their moves are theirs to delete. No table is read.
SELECT
    current_user::text AS role,
    has_table_privilege('collect.task', 'DELETE') AND has_table_privilege('collect.task_log', 'DELETE') AS allowed
