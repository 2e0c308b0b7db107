-- In the transaction that lands a page: what it is known by. A page that was fetched later stays. Primary key.
INSERT INTO collect.page_validator AS v (
    table_name, request, epoch, source, etag, last_modified, rows, total, following, fetched_at
)
VALUES (
    %(table_name)s, %(request)s, %(epoch)s, %(source)s, %(etag)s, %(last_modified)s, %(rows)s, %(total)s,
    %(following)s, %(fetched_at)s
)
ON CONFLICT (table_name, request) DO UPDATE
SET
    epoch = EXCLUDED.epoch, source = EXCLUDED.source, etag = EXCLUDED.etag, last_modified = EXCLUDED.last_modified,
    rows = EXCLUDED.rows, total = EXCLUDED.total, following = EXCLUDED.following, fetched_at = EXCLUDED.fetched_at,
    seen_at = now()
WHERE v.fetched_at <= EXCLUDED.fetched_at
