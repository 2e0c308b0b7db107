-- Writes trace rows from one JSON array, in its order. Append only; safe beside anything.
INSERT INTO collect.trace (task_id, shard_no, attempt, stage, duration_s, rows, bytes, request, response, error)
SELECT t.task_id, t.shard_no, t.attempt, t.stage, t.duration_s, t.rows, t.bytes, t.request, t.response, t.error
FROM jsonb_to_recordset(%(traces)s::jsonb) AS t (
    task_id bigint, shard_no integer, attempt integer, stage text, duration_s double precision, rows bigint,
    bytes bigint, request jsonb, response jsonb, error jsonb
)
