-- Deletes tasks and everything about them; rows that they landed stay. The caller holds their locks, and judge_tasks has
-- let them go. Returns how many rows of each kind. Primary keys, indexes submission_task, dedup_task, dead_letter_once,
-- shard_pkey, trace_task, task_log_task, bad_row_shard, page_fingerprint_pkey,
-- run_note_pkey.
WITH gone AS (
    SELECT unnest(%(task_ids)s::bigint[]) AS id
),
submissions AS (
    DELETE FROM collect.submission AS d USING gone AS g WHERE d.task_id = g.id RETURNING 1
),
dedup_keys AS (
    DELETE FROM collect.dedup AS d USING gone AS g WHERE d.task_id = g.id RETURNING 1
),
dead_letters AS (
    DELETE FROM collect.dead_letter AS d USING gone AS g WHERE d.task_id = g.id RETURNING 1
),
shards AS (
    DELETE FROM collect.shard AS d USING gone AS g WHERE d.task_id = g.id RETURNING 1
),
traces AS (
    DELETE FROM collect.trace AS d USING gone AS g WHERE d.task_id = g.id RETURNING 1
),
log_rows AS (
    DELETE FROM collect.task_log AS d USING gone AS g WHERE d.task_id = g.id RETURNING 1
),
bad_rows AS (
    DELETE FROM collect.bad_row AS d USING gone AS g WHERE d.task_id = g.id RETURNING 1
),
fingerprints AS (
    DELETE FROM collect.page_fingerprint AS d USING gone AS g WHERE d.task_id = g.id RETURNING 1
),
run_notes AS (
    DELETE FROM collect.run_note AS d USING gone AS g WHERE d.task_id = g.id RETURNING 1
),
tasks AS (
    DELETE FROM collect.task AS d USING gone AS g WHERE d.id = g.id RETURNING 1
)
SELECT
    (SELECT count(*) FROM tasks) AS tasks,
    (SELECT count(*) FROM submissions) AS submissions,
    (SELECT count(*) FROM dedup_keys) AS dedup_keys,
    (SELECT count(*) FROM dead_letters) AS dead_letters,
    (SELECT count(*) FROM shards) AS shards,
    (SELECT count(*) FROM traces) AS traces,
    (SELECT count(*) FROM log_rows) AS task_log,
    (SELECT count(*) FROM bad_rows) AS bad_rows,
    (SELECT count(*) FROM run_notes) AS run_notes
