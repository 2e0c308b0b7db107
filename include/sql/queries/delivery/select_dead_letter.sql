-- Everything of one dead letter. Primary key.
SELECT
    d.*,
    octet_length(d.body) AS kept_bytes,
    t.status AS task_status, t.params, t.path, t.priority, t.lane, t.attempt, t.error, t.submitted_by, t.submitted_via,
    t.merged_into, t.merged_task_ids
FROM collect.dead_letter AS d
LEFT JOIN collect.task AS t ON t.id = d.task_id
WHERE d.id = %(id)s
