-- Retention: how far it has come, and what it looks for closed shard groups by. Nothing that runs beside this needs it.

-- Tasks whose traces or bad rows are gone while they themselves are kept longer: those that ended up to here.
CREATE TABLE collect.retention_mark (
    kind        text PRIMARY KEY,
    finished_at timestamptz NOT NULL,
    task_id     bigint NOT NULL
);
COMMENT ON TABLE collect.retention_mark IS 'How far retention has come with what is deleted before its task';

CREATE INDEX shard_group_closed ON collect.shard_group (closed_at) WHERE status = 'CLOSED';
