-- Writes one trace row. Append only; safe beside anything.
INSERT INTO collect.trace (task_id, shard_no, attempt, stage, duration_s, rows, bytes, request, response, error)
VALUES (
    %(task_id)s, %(shard_no)s, %(attempt)s, %(stage)s, %(duration_s)s, %(rows)s, %(bytes)s,
    %(request)s, %(response)s, %(error)s
)
