-- What a shard group has to do, with the declarations of its tasks. Index shard_by_group.
SELECT
    s.task_id, s.shard_no, s.span_offset, s.span_size, s.params AS shard_params, s.status, t.attempt, t.source, t.path,
    t.params, encode(t.source_version, 'hex') AS version
FROM collect.shard AS s
JOIN collect.task AS t ON t.id = s.task_id
WHERE s.run_id = %(run_id)s AND s.group_no = %(group_no)s AND s.status <> 'DONE'
    AND t.run_id = %(run_id)s AND t.status IN ('DISPATCHED', 'RUNNING')
ORDER BY s.task_id, s.shard_no
