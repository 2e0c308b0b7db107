-- Forgets endpoints of which nothing was heard for so long, and whose circuit was open no longer ago. The table holds what
-- fails and nothing else. Two at once delete each row once; one that fails at this moment is written anew.
DELETE FROM collect.endpoint
WHERE
    changed_at < now() - make_interval(secs => %(quiet_s)s)
    AND (held_until IS NULL OR held_until < now() - make_interval(secs => %(quiet_s)s))
