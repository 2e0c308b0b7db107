-- Those of some request ids that have been answered before. Primary key.
SELECT request_id FROM collect.submission
WHERE request_id = ANY(%(request_ids)s::text[])
