-- Forgets what the machine log keeps no longer. BRIN index on `at`.
DELETE FROM collect.node_sample WHERE at < now() - make_interval(secs => %(keep_s)s)
