-- In the transaction that counts a page as unchanged: returns a row when its rows are still in the table, as they landed
-- with these validators. No row: it has to be fetched. Primary keys.
UPDATE collect.page_validator AS v
SET seen_at = now()
FROM collect.landing_target AS t
WHERE
    v.table_name = %(table_name)s AND v.request = %(request)s AND v.epoch = %(epoch)s
    AND v.etag IS NOT DISTINCT FROM %(etag)s AND v.last_modified IS NOT DISTINCT FROM %(last_modified)s
    AND t.table_name = v.table_name AND t.epoch = v.epoch
    AND t.table_oid = to_regclass(format('landing.%%I', %(table_name)s::text))::oid
RETURNING v.rows
