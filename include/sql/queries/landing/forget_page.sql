-- In the transaction that lands a page which nothing is known by, or only in part: what it was known by before counts no
-- more. Primary key.
DELETE FROM collect.page_validator
WHERE table_name = %(table_name)s AND request = %(request)s AND fetched_at <= %(fetched_at)s
