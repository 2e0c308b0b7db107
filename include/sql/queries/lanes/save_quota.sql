-- A block was given out. Primary key; the caller holds the lock (lock_quota).
UPDATE collect.host_quota SET day = %(day)s, quota = %(quota)s, granted = %(granted)s
WHERE connection = %(connection)s
