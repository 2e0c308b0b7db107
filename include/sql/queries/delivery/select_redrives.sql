-- How far redrives are, newest first; of the letters that were sent again also how they ended. Primary keys, index
-- redrive_open.
SELECT
    r.id, r.asked, r.rate_per_s, r.reason, r.requested_by, r.total, r.started_at, r.finished_at, r.cancelled_at,
    r.cancelled_by, coalesce(c.pending, 0) AS pending, coalesce(c.done, 0) AS done, coalesce(c.skipped, 0) AS skipped,
    coalesce(c.cancelled, 0) AS cancelled, coalesce(c.taken_back, 0) AS taken_back, coalesce(c.settled, 0) AS settled,
    coalesce(c.failed, 0) AS failed
FROM collect.redrive AS r
LEFT JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE i.state = 'PENDING') AS pending,
        count(*) FILTER (WHERE i.state = 'DONE') AS done,
        count(*) FILTER (WHERE i.state = 'SKIPPED') AS skipped,
        count(*) FILTER (WHERE i.state = 'CANCELLED') AS cancelled,
        count(*) FILTER (WHERE i.state = 'TAKEN_BACK') AS taken_back,
        count(*) FILTER (WHERE i.state = 'DONE' AND d.state = 'SETTLED') AS settled,
        count(*) FILTER (WHERE i.state = 'DONE' AND d.state = 'FAILED') AS failed
    FROM collect.redrive_item AS i
    JOIN collect.dead_letter AS d ON d.id = i.dead_letter_id
    WHERE i.redrive_id = r.id
) AS c ON true
WHERE
    (%(redrive_id)s::bigint IS NULL OR r.id = %(redrive_id)s)
    AND (NOT %(open_only)s OR r.finished_at IS NULL)
ORDER BY r.id DESC
LIMIT %(limit)s
