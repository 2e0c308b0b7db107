-- What Airflow has to show of a run although its own tasks went well: a collect task of it ended DEAD or PARTIAL. Written
-- in the transaction that settles the task; delivered by the run's last task, and by the sweep when that could not.
CREATE TABLE collect.run_note (
    task_id      bigint NOT NULL REFERENCES collect.task (id) ON DELETE CASCADE,
    attempt      integer NOT NULL,
    dag_id       text NOT NULL,
    run_id       text NOT NULL,
    status       text NOT NULL,
    reason       text,
    written_at   timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz,
    PRIMARY KEY (task_id, attempt),
    CONSTRAINT run_note_status_known CHECK (status IN ('DEAD', 'PARTIAL'))
);
CREATE INDEX run_note_run ON collect.run_note (run_id);
-- Nearly empty at all times.
CREATE INDEX run_note_undelivered ON collect.run_note (written_at) WHERE delivered_at IS NULL;
