-- Shards that an attempt has to run. Primary key prefix.
SELECT shard_no, span_offset, span_size, params, coalesce(label, '') AS label FROM collect.shard
WHERE task_id = %(task_id)s AND status <> 'DONE'
ORDER BY shard_no
