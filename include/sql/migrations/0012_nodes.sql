-- Nodes: the machines that run workers, as their heartbeats describe them, and what they said over time.
CREATE TABLE collect.node (
    id                   text PRIMARY KEY,
    machine              text NOT NULL,
    boot_id              text NOT NULL,
    started_at           timestamptz NOT NULL,
    seq                  bigint NOT NULL,
    name                 text NOT NULL,
    address              text NOT NULL,
    version              text NOT NULL,
    labels               jsonb NOT NULL DEFAULT '{}',
    kinds                text[] NOT NULL DEFAULT '{}',
    slots                integer NOT NULL,
    cpu_percent          real NOT NULL,
    memory_percent       real NOT NULL,
    memory_bytes         bigint NOT NULL,
    disk_percent         real NOT NULL,
    disk_free_bytes      bigint NOT NULL,
    load_1               real NOT NULL,
    workers_bytes        bigint NOT NULL,
    groups               integer NOT NULL,
    clock_skew_s         double precision,
    draining             boolean NOT NULL DEFAULT false,
    leaving              boolean NOT NULL DEFAULT false,
    status               text NOT NULL DEFAULT 'ACTIVE',
    status_reason        text NOT NULL DEFAULT 'it has said that it lives',
    status_since         timestamptz NOT NULL DEFAULT now(),
    heartbeat_at         timestamptz NOT NULL DEFAULT now(),
    back_at              timestamptz NOT NULL DEFAULT now(),
    lost_at              timestamptz[] NOT NULL DEFAULT '{}',
    first_seen_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT node_status CHECK (status IN ('ACTIVE', 'SUSPECT', 'DRAINING', 'LOST', 'LEFT'))
);
COMMENT ON TABLE collect.node IS 'A machine that runs workers; its newest heartbeat, and the state that follows';
COMMENT ON COLUMN collect.node.machine IS 'Of the machine: two that claim one id differ in it';
COMMENT ON COLUMN collect.node.started_at IS 'Of its agent, by the node''s clock: compared with its other starts only';
COMMENT ON COLUMN collect.node.heartbeat_at IS 'When its newest heartbeat was taken in, by this database''s clock';
COMMENT ON COLUMN collect.node.back_at IS 'Since when it has been alive without a break';
COMMENT ON COLUMN collect.node.lost_at IS 'When it was lost, the last times';

-- The machine log: a row a heartbeat.
CREATE TABLE collect.node_sample (
    node_id              text NOT NULL,
    at                   timestamptz NOT NULL DEFAULT now(),
    boot_id              text NOT NULL,
    seq                  bigint NOT NULL,
    cpu_percent          real NOT NULL,
    memory_percent       real NOT NULL,
    disk_percent         real NOT NULL,
    load_1               real NOT NULL,
    received_bytes_per_s real NOT NULL,
    sent_bytes_per_s     real NOT NULL,
    workers_bytes        bigint NOT NULL,
    groups               integer NOT NULL,
    clock_skew_s         double precision,
    PRIMARY KEY (node_id, boot_id, seq)
);
COMMENT ON TABLE collect.node_sample IS 'The machine log: what nodes said of their load, a row a heartbeat';
CREATE INDEX node_sample_at ON collect.node_sample USING brin (at);

-- What became of nodes, for people: every change of state with its reason.
CREATE TABLE collect.node_log (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_id     text NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    from_status text,
    to_status   text NOT NULL,
    reason      text NOT NULL
);
CREATE INDEX node_log_node ON collect.node_log (node_id, id);
