-- What delete_node_log would delete, for a dry run: reads the whole table, which is small.
SELECT count(*) AS rows FROM collect.node_log WHERE at < now() - make_interval(secs => %(keep_s)s)
