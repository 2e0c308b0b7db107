-- Events that Airflow has, or that nobody waits for. Primary key; safe twice.
DELETE FROM collect.table_event WHERE id = ANY(%(ids)s::bigint[])
