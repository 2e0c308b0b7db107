-- Task ids for a batch; ids of submissions that turn out duplicates are lost, which costs nothing. The sequence is that
-- of the identity column.
SELECT nextval('collect.task_id_seq') AS id
FROM generate_series(1, %(count)s)
