-- What a page was known by when it landed; no row when it has not, or not in this epoch, or too long ago. Primary keys.
SELECT v.etag, v.last_modified, v.rows, v.total, v.following
FROM collect.page_validator AS v
JOIN collect.landing_target AS t ON t.table_name = v.table_name AND t.epoch = v.epoch
WHERE
    v.table_name = %(table_name)s AND v.request = %(request)s AND v.epoch = %(epoch)s
    AND v.fetched_at > now() - make_interval(secs => %(full_after_s)s)
