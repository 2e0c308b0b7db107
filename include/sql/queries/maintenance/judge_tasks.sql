-- Why each of these tasks is kept; NULL: it may be deleted. The caller holds their locks, and this statement sees what
-- whoever held them before has done: a letter that was taken back, a key that was taken. Keys that have just expired
-- count as taken: an admission that found its task may not have committed. Primary keys of both tables, indexes
-- task_merged_into, submission_task, dedup_task, dead_letter_once, redrive_item_letter.
SELECT
    t.id,
    CASE
        WHEN t.finished_at IS NULL THEN 'open'
        WHEN
            t.finished_at >= now() - make_interval(secs => CASE
                WHEN t.status IN ('COMPLETED', 'PARTIAL') THEN %(completed_s)s::float8
                WHEN t.status = 'CANCELLED' THEN %(cancelled_s)s::float8
                ELSE %(dead_s)s::float8
            END) THEN 'younger'
        WHEN t.merged_into IS NOT NULL THEN 'its survivor is kept'
        WHEN
            EXISTS (
                SELECT FROM collect.task AS m WHERE m.merged_into = t.id AND m.finished_at IS NULL
            ) THEN 'a task waits for it'
        WHEN
            EXISTS (
                SELECT FROM collect.dead_letter AS d
                WHERE d.task_id = t.id AND (d.state IN ('OPEN', 'REDRIVEN') OR d.confirmed_at IS NULL)
            ) THEN 'its dead letter is open'
        WHEN
            EXISTS (
                SELECT FROM collect.dead_letter AS d
                WHERE d.task_id = t.id AND d.state_at >= now() - make_interval(secs => %(dead_s)s)
            ) THEN 'its dead letter was dealt with lately'
        WHEN
            EXISTS (
                SELECT FROM collect.dead_letter AS d
                JOIN collect.redrive_item AS i ON i.dead_letter_id = d.id
                JOIN collect.redrive AS r ON r.id = i.redrive_id
                WHERE d.task_id = t.id AND r.finished_at IS NULL
            ) THEN 'a redrive is under way'
        WHEN
            EXISTS (
                SELECT FROM collect.run_note AS n WHERE n.task_id = t.id AND n.delivered_at IS NULL
            ) THEN 'its run note is not delivered'
        WHEN
            t.status IN ('COMPLETED', 'PARTIAL')
            AND EXISTS (
                SELECT FROM collect.dedup AS k
                WHERE k.task_id = t.id AND k.expires_at > now() - interval '1 hour'
            ) THEN 'its dedup key holds'
        WHEN
            EXISTS (
                SELECT FROM collect.submission AS s
                WHERE s.task_id = t.id AND s.submitted_at >= now() - make_interval(secs => %(requests_s)s)
            ) THEN 'it answers a request id'
    END AS kept
FROM collect.task AS t
WHERE t.id = ANY(%(task_ids)s::bigint[])
