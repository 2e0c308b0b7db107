-- Stores a task's shards; those of an earlier attempt stay. Nothing of them has landed, so no page of the task is known.
-- Primary keys.
WITH forgotten AS (
    DELETE FROM collect.page_fingerprint WHERE task_id = %(task_id)s
)

INSERT INTO collect.shard (task_id, shard_no, span_offset, span_size, params, label, units)
SELECT %(task_id)s, s.shard_no, s.span_offset, s.span_size, s.params, s.label, s.units
FROM unnest(
    %(shard_nos)s::int[], %(offsets)s::bigint[], %(sizes)s::bigint[], %(params)s::jsonb[], %(labels)s::text[],
    %(units)s::bigint[]
) AS s (shard_no, span_offset, span_size, params, label, units)
ON CONFLICT (task_id, shard_no) DO NOTHING
