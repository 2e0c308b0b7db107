-- What delete_tasks would delete of these tasks, for a dry run. The same indexes.
WITH gone AS (
    SELECT unnest(%(task_ids)s::bigint[]) AS id
)
SELECT
    (SELECT count(*) FROM gone) AS tasks,
    (SELECT count(*) FROM collect.submission AS d JOIN gone AS g ON d.task_id = g.id) AS submissions,
    (SELECT count(*) FROM collect.dedup AS d JOIN gone AS g ON d.task_id = g.id) AS dedup_keys,
    (SELECT count(*) FROM collect.dead_letter AS d JOIN gone AS g ON d.task_id = g.id) AS dead_letters,
    (SELECT count(*) FROM collect.shard AS d JOIN gone AS g ON d.task_id = g.id) AS shards,
    (SELECT count(*) FROM collect.trace AS d JOIN gone AS g ON d.task_id = g.id) AS traces,
    (SELECT count(*) FROM collect.task_log AS d JOIN gone AS g ON d.task_id = g.id) AS task_log,
    (SELECT count(*) FROM collect.bad_row AS d JOIN gone AS g ON d.task_id = g.id) AS bad_rows,
    (SELECT count(*) FROM collect.run_note AS d JOIN gone AS g ON d.task_id = g.id) AS run_notes
