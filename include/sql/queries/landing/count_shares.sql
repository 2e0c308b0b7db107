-- Template: {target}, {part} (what tells whose a row is), {condition} (which of it is a caller's).
-- How many of the rows that a task landed match what each of its callers asked for; rows of an overlap count for each.
-- One pass over the task's rows by index _task_shard, then a comparison a distinct value and caller.
WITH landed AS MATERIALIZED (
    SELECT {part} AS value, count(*) AS many FROM {target} WHERE _task_id = %(task_id)s GROUP BY {part}
)
SELECT caller.task_id, coalesce(sum(landed.many), 0)::bigint AS many
FROM jsonb_to_recordset(%(callers)s::jsonb) AS caller (task_id bigint, items text [], low text, high text)
LEFT JOIN landed ON {condition}
GROUP BY caller.task_id
