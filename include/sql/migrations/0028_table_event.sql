-- That rows of a task landed in a table. Written in the transaction that settles the task, whatever way it came in, and
-- deleted when Airflow has the table's asset event: nearly empty at all times.
CREATE TABLE collect.table_event (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name  text NOT NULL,
    task_id     bigint NOT NULL,
    source      text NOT NULL,
    rows_landed bigint NOT NULL,
    landed_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX table_event_table ON collect.table_event (table_name, id);

-- When a table's events may be sent next: a row a table, so that many processes send one event in ten seconds.
CREATE TABLE collect.table_event_turn (
    table_name text PRIMARY KEY,
    next_at    timestamptz NOT NULL
);
