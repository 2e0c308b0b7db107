-- On which node a shard group shall run, whether it lives, and what becomes of it when its node does not take it.

ALTER TABLE collect.node
    ADD COLUMN dispatch_failures integer NOT NULL DEFAULT 0,
    ADD COLUMN holds             integer NOT NULL DEFAULT 0,
    ADD COLUMN held_until        timestamptz,
    ADD COLUMN drain_until       timestamptz;
COMMENT ON COLUMN collect.node.dispatch_failures IS 'Dispatches in a row that it did not take';
COMMENT ON COLUMN collect.node.holds IS 'Holds in a row: each lasts longer than the one before';
COMMENT ON COLUMN collect.node.held_until IS 'Until then nothing is placed on it; what comes after that is the try';
COMMENT ON COLUMN collect.node.drain_until IS 'By then its shard groups shall have handed back what they have not done';

ALTER TABLE collect.shard_group
    ADD COLUMN placed_node text,
    ADD COLUMN map_index   integer,
    ADD COLUMN alive_at    timestamptz,
    ADD COLUMN doubted_at  timestamptz,
    ADD COLUMN handed_back boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN collect.shard_group.placed_node IS 'Where it was sent; node is where it has started';
COMMENT ON COLUMN collect.shard_group.map_index IS 'Of the Airflow task instance that runs it';
COMMENT ON COLUMN collect.shard_group.alive_at IS 'When it last said that it lives, by this database''s clock';
COMMENT ON COLUMN collect.shard_group.doubted_at IS 'When it was first seen to be silent; it answers before it counts as lost';
COMMENT ON COLUMN collect.shard_group.handed_back IS 'Its node drains: it has ended early, its shards wait';
CREATE INDEX shard_group_open_node ON collect.shard_group (coalesce(node, placed_node)) WHERE status = 'OPEN';

ALTER TABLE collect.task
    ADD COLUMN nodes             text[] NOT NULL DEFAULT '{}',
    ADD COLUMN refused_nodes     text[] NOT NULL DEFAULT '{}',
    ADD COLUMN dispatch_failures integer NOT NULL DEFAULT 0,
    ADD COLUMN dispatched_at     timestamptz,
    ADD COLUMN held_for          text;
COMMENT ON COLUMN collect.task.nodes IS 'Where the groups of its attempt are placed, in order; none: on any worker';
COMMENT ON COLUMN collect.task.refused_nodes IS 'Nodes that did not take it since it last started on one';
COMMENT ON COLUMN collect.task.dispatch_failures IS 'How often in a row no node took it';
COMMENT ON COLUMN collect.task.held_for IS 'What a HELD task waits for: null for a limit or a host, node for a node that can take it';

ALTER TABLE collect.trace DROP CONSTRAINT trace_stage_known;
ALTER TABLE collect.trace ADD CONSTRAINT trace_stage_known CHECK (stage IN (
    'admit', 'publish', 'claim', 'place', 'plan', 'fetch', 'land', 'settle', 'repair')) NOT VALID;

-- DISPATCH_FAILED tasks wait until they are due, and are tried again.
CREATE INDEX task_dispatch_failed ON collect.task (due_at) WHERE status = 'DISPATCH_FAILED';

-- What alert rules look at, beside states and figures.
CREATE TABLE collect.event (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind     text NOT NULL,
    severity text NOT NULL,
    subject  text NOT NULL,
    message  text NOT NULL,
    details  jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT event_severity_known CHECK (severity IN ('info', 'warning', 'error', 'critical'))
);
CREATE INDEX event_kind ON collect.event (kind, id);
COMMENT ON TABLE collect.event IS 'What happened that somebody may want to be told of';
