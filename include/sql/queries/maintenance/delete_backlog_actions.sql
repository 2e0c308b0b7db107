-- Deletes what backlog rules did and undid long ago, some at a time; the caller goes on while as many go as it asked for. Reads
-- the oldest by number and leaves those that are younger. Primary key. Two at once delete each row once.
WITH oldest AS (
    SELECT id FROM collect.backlog_action WHERE undone_at IS NOT NULL ORDER BY id LIMIT %(most)s
)
DELETE FROM collect.backlog_action AS d
USING oldest AS o
WHERE d.id = o.id AND d.undone_at < now() - make_interval(secs => %(keep_s)s)
