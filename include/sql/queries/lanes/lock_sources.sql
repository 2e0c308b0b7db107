-- Of sources with a limit those whose tasks nobody else is claiming: locked until the claim commits, since claims of
-- two lanes do not see what the other has not committed. Advisory locks that are tried, so that nobody waits.
SELECT s.source
FROM unnest(%(sources)s::text[]) AS s (source)
WHERE pg_try_advisory_xact_lock(hashtext('collect.source'), hashtext(s.source))
