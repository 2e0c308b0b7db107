-- What delete_events would delete, for a dry run: reads the whole table, which is small.
SELECT count(*) AS rows FROM collect.event WHERE at < now() - make_interval(secs => %(keep_s)s)
