-- When a chore that need not run with every pass last began, so that it runs once an interval, whoever comes first.
-- Nothing that runs beside this reads or needs it.

CREATE TABLE collect.chore_turn (
    chore    text PRIMARY KEY,
    began_at timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE collect.chore_turn IS 'When each chore last began that runs once an interval';
