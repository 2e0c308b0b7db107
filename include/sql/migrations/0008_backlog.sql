-- Backlog: samples of what waits, rules that act on it, and what they have set.

-- What came in and what ended in the last minutes is counted from the tasks themselves.
CREATE INDEX task_created ON collect.task (created_at);
CREATE INDEX task_finished ON collect.task (finished_at) WHERE finished_at IS NOT NULL;

-- A row a minute for every lane (source NULL), and one for every lane and source that had something.
CREATE TABLE collect.backlog_sample (
    at          timestamptz NOT NULL,
    lane        text NOT NULL,
    source      text,
    depth       integer NOT NULL,
    oldest_s    double precision NOT NULL,
    arrivals    integer NOT NULL,
    completions integer NOT NULL,
    CONSTRAINT backlog_sample_once UNIQUE NULLS NOT DISTINCT (at, lane, source)
);
COMMENT ON COLUMN collect.backlog_sample.arrivals IS 'Tasks admitted in the minute before';
COMMENT ON COLUMN collect.backlog_sample.completions IS 'Tasks that ended in the minute before, cancelled ones excluded';

-- Where a rule stands for a lane or a source; no row: IDLE.
CREATE TABLE collect.backlog_state (
    rule    text NOT NULL,
    kind    text NOT NULL,
    scope   text NOT NULL,
    phase   text NOT NULL,
    since   timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (rule, kind, scope),
    CONSTRAINT backlog_state_kind_known CHECK (kind IN ('lane', 'source')),
    CONSTRAINT backlog_state_phase_known CHECK (phase IN ('PENDING', 'ACTIVE', 'CLEARING'))
);

-- What rules have set for a lane; NULL: as include/rules/lanes.yaml says. `slots` counts only what the pool has already.
CREATE TABLE collect.lane_setting (
    lane            text PRIMARY KEY,
    slots           integer,
    groups_per_task integer,
    pack            integer,
    pool_wanted     integer,
    pool_dirty      boolean NOT NULL DEFAULT false,
    CONSTRAINT lane_setting_positive CHECK (slots >= 1 AND groups_per_task >= 1 AND pack >= 1 AND pool_wanted >= 1)
);
COMMENT ON COLUMN collect.lane_setting.pool_wanted IS 'Slots that Airflow''s pool shall have';
COMMENT ON COLUMN collect.lane_setting.pool_dirty IS 'Airflow has not confirmed yet that the pool is as wanted';

-- Sources whose admission is slowed.
CREATE TABLE collect.brake (
    source        text PRIMARY KEY,
    rule          text NOT NULL,
    reason        text NOT NULL,
    retry_after_s double precision NOT NULL,
    per_s         double precision,
    tokens        double precision NOT NULL DEFAULT 0,
    filled_at     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT brake_positive CHECK (retry_after_s > 0 AND per_s > 0)
);
COMMENT ON COLUMN collect.brake.per_s IS 'Submissions a second that are admitted all the same; NULL: none';

-- The journal of what rules did.
CREATE TABLE collect.backlog_action (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule         text NOT NULL,
    kind         text NOT NULL,
    scope        text NOT NULL,
    action       text NOT NULL,
    value_before jsonb NOT NULL,
    value_after  jsonb NOT NULL,
    reason       text NOT NULL,
    actor        text NOT NULL,
    asked_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_at   timestamptz,
    problem      text,
    ending_at    timestamptz,
    undone_at    timestamptz,
    undo_reason  text,
    CONSTRAINT backlog_action_known CHECK (action IN ('scale_groups', 'widen_pool', 'slow_admission', 'shed'))
);
CREATE UNIQUE INDEX backlog_action_open ON collect.backlog_action (rule, kind, scope, action) WHERE ending_at IS NULL;
CREATE INDEX backlog_action_unfinished ON collect.backlog_action (kind, scope) WHERE undone_at IS NULL;
COMMENT ON COLUMN collect.backlog_action.applied_at IS 'When it took effect: for a pool, when Airflow had confirmed';
COMMENT ON COLUMN collect.backlog_action.problem IS 'Why it has not taken effect yet';
COMMENT ON COLUMN collect.backlog_action.ending_at IS 'When the rule let go of it';
COMMENT ON COLUMN collect.backlog_action.undone_at IS 'When its effect had ended';
