-- Deletes samples that are older than they are kept. Index backlog_sample_once. Two at once delete each row once.
DELETE FROM collect.backlog_sample
WHERE at < now() - make_interval(secs => %(keep_s)s)
