-- A redrive of some dead letters, which takes them in the order of their ids. Returns its id.
WITH redrive AS (
    INSERT INTO collect.redrive (asked, rate_per_s, reason, requested_by, total)
    VALUES (%(asked)s, %(rate_per_s)s, %(reason)s, %(actor)s, cardinality(%(ids)s::bigint[]))
    RETURNING id
),
items AS (
    INSERT INTO collect.redrive_item (redrive_id, dead_letter_id)
    SELECT r.id, i.id
    FROM redrive AS r
    CROSS JOIN unnest(%(ids)s::bigint[]) AS i (id)
)
SELECT id FROM redrive
