-- One claim a lane at a time: an advisory lock of the claim's own transaction, so that a dead claim blocks nobody.
-- Returns whether we have it.
SELECT pg_try_advisory_xact_lock(hashtext('collect.lane'), hashtext(%(lane)s)) AS locked
