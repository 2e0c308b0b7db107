-- What Airflow did not take is asked for again after longer each time, and keeps nothing else waiting.
-- Safe beside running processes: they neither name nor need these columns.

-- That the last try to send a table's events failed although it had all the time there was: passes with a time limit leave
-- them to the sweep, which has none, and the sweep tries them after the others.
ALTER TABLE collect.table_event_turn ADD COLUMN failed_at timestamptz;

-- When a note is due again, and how often it was tried in vain.
ALTER TABLE collect.run_note ADD COLUMN next_at timestamptz, ADD COLUMN tries integer NOT NULL DEFAULT 0;
