-- What delete_backlog_actions would delete, for a dry run: reads the whole table, which is small.
SELECT count(*) AS rows FROM collect.backlog_action WHERE undone_at < now() - make_interval(secs => %(keep_s)s)
