-- Template: {target} is where a task's rows of disposition append or replace have landed, {row_key} what two rows that
-- are one have in common.
-- Counts the task's rows that were fetched more than once. Uses the table's index on (_task_id, _shard), and reads no
-- other task's rows. The caller knows that the task lands no more.
SELECT coalesce(sum(times - 1), 0)::bigint AS repeated
FROM (
    SELECT count(*) AS times FROM {target} WHERE _task_id = %(task_id)s GROUP BY {row_key} HAVING count(*) > 1
) AS twice
