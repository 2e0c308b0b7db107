-- Why the first of a task's bad rows does not fit. Index bad_row_shard.
SELECT reason FROM collect.bad_row WHERE task_id = %(task_id)s ORDER BY task_id, shard_no, page, ordinal LIMIT 1
