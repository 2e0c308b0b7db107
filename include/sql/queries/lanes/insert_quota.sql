-- A host's quota, declared for the first time. Primary key.
INSERT INTO collect.host_quota (connection, day, quota)
VALUES (%(connection)s, (clock_timestamp() AT TIME ZONE 'UTC')::date, %(quota)s)
ON CONFLICT (connection) DO NOTHING
