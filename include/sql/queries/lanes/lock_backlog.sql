-- Takes the lock of the backlog's evaluation for this session, or says that another has it, and the time. Released with the session,
-- so a dead one blocks nobody.
SELECT pg_try_advisory_lock(hashtext('collect.backlog')) AS locked, clock_timestamp() AS at
