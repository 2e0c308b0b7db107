-- Locks the records of hosts, made where there is none, until the transaction ends, in the order of their names. Primary
-- key. Every change of a host's record, and of those of its endpoints, is made under this lock; they are read after it.
INSERT INTO collect.host AS h (connection)
SELECT c.connection FROM unnest(%(connections)s::text[]) AS c (connection) ORDER BY c.connection
ON CONFLICT (connection) DO UPDATE SET connection = excluded.connection
