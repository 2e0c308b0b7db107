-- Keeps that a task's rows are in their table, in the transaction that settles it. Of a replacement only if this task's
-- rows are the table's now: one that was superseded, or ended incomplete, has changed nothing. Index landing_target_pkey.
INSERT INTO collect.table_event (table_name, task_id, source, rows_landed)
SELECT %(table_name)s, %(task_id)s, %(source)s, %(rows_landed)s
WHERE CASE
    WHEN %(replaces)s
        THEN EXISTS (
            SELECT FROM collect.landing_target AS l
            WHERE l.table_name = %(table_name)s AND l.swapped_task_id = %(task_id)s
        )
    ELSE %(rows_landed)s::bigint > 0
END
