-- Task ids for a batch; ids of submissions that turn out duplicates are lost, which costs nothing.
SELECT nextval(pg_get_serial_sequence('collect.task', 'id')) AS id
FROM generate_series(1, %(count)s)
