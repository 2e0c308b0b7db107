-- Forgets pages that nobody has asked for in a long time. Index page_validator_seen. Two at once delete each row once.
DELETE FROM collect.page_validator WHERE seen_at < now() - make_interval(secs => %(keep_s)s)
