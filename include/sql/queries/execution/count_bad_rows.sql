-- Bad rows of a task so far. Primary key prefix.
SELECT coalesce(sum(bad_rows), 0)::bigint AS bad_rows FROM collect.shard WHERE task_id = %(task_id)s
