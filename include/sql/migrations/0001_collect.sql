-- The collect task, its shards, and what is written about them.
-- PostgreSQL is the truth: RabbitMQ carries and orders, Redis makes fast.

CREATE SCHEMA IF NOT EXISTS collect;
CREATE SCHEMA IF NOT EXISTS landing;
CREATE SCHEMA IF NOT EXISTS landing_aside;

COMMENT ON SCHEMA landing IS 'Collected rows, one table a target; made and written by collect-ops';
COMMENT ON SCHEMA landing_aside IS 'Rows of disposition replace, until they are swapped in';

-- A declaration as it was when a task was admitted: a task runs as it was asked for, even when the file changes.
CREATE TABLE collect.source_version (
    hash       bytea PRIMARY KEY,
    source     text NOT NULL,
    definition jsonb NOT NULL,
    seen_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE collect.task (
    id                   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source               text NOT NULL,
    source_version       bytea NOT NULL REFERENCES collect.source_version (hash),
    path                 text,
    params               jsonb NOT NULL DEFAULT '{}',
    dedup_key            bytea NOT NULL,
    priority             smallint NOT NULL,
    lane                 text NOT NULL,
    status               text NOT NULL,
    reason               text,
    moved_by             text NOT NULL,
    submitted_by         text NOT NULL,
    submitted_via        text NOT NULL,
    generation           integer NOT NULL DEFAULT 1,
    confirmed_generation integer NOT NULL DEFAULT 0,
    attempt              integer NOT NULL DEFAULT 0,
    max_retries          integer NOT NULL,
    retry_count          integer NOT NULL DEFAULT 0,
    lost_count           integer NOT NULL DEFAULT 0,
    due_at               timestamptz,
    dag_id               text,
    run_id               text,
    groups_reserved      integer NOT NULL DEFAULT 0,
    shards_total         integer,
    total_rows           bigint,
    result               jsonb,
    error                jsonb,
    created_at           timestamptz NOT NULL DEFAULT now(),
    queued_at            timestamptz NOT NULL DEFAULT now(),
    claimed_at           timestamptz,
    started_at           timestamptz,
    progress_at          timestamptz NOT NULL DEFAULT now(),
    finished_at          timestamptz,
    CONSTRAINT task_priority_range CHECK (priority BETWEEN 0 AND 10),
    CONSTRAINT task_status_known CHECK (status IN (
        'CREATED', 'QUEUED', 'HELD', 'CLAIMED', 'DISPATCHED', 'RUNNING', 'COMPLETED', 'PARTIAL', 'RETRYING',
        'DEAD', 'MERGED', 'CANCELLED', 'DISPATCH_FAILED')),
    CONSTRAINT task_confirmed_not_ahead CHECK (confirmed_generation <= generation)
) WITH (fillfactor = 80);

-- The outbox: nearly empty at all times.
CREATE INDEX task_unconfirmed ON collect.task (queued_at) WHERE confirmed_generation < generation;
-- Everything that is not finished; repair, capacity and limits read it.
CREATE INDEX task_open ON collect.task (status, lane, source)
    WHERE status IN ('QUEUED', 'HELD', 'CLAIMED', 'DISPATCHED', 'RUNNING', 'RETRYING', 'DISPATCH_FAILED');
CREATE INDEX task_source_recent ON collect.task (source, id DESC);
CREATE INDEX task_run ON collect.task (run_id) WHERE run_id IS NOT NULL;

CREATE TABLE collect.submission (
    request_id   text PRIMARY KEY,
    task_id      bigint REFERENCES collect.task (id) ON DELETE CASCADE,
    duplicate    boolean NOT NULL DEFAULT false,
    submitted_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX submission_task ON collect.submission (task_id);

CREATE TABLE collect.dedup (
    key        bytea PRIMARY KEY,
    -- Deferred: the key is taken before its task is stored, in one transaction.
    task_id    bigint NOT NULL REFERENCES collect.task (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    expires_at timestamptz NOT NULL
);
CREATE INDEX dedup_expiry ON collect.dedup (expires_at);
CREATE INDEX dedup_task ON collect.dedup (task_id);

CREATE TABLE collect.shard_group (
    run_id         text NOT NULL,
    group_no       integer NOT NULL,
    lane           text NOT NULL,
    label          text NOT NULL,
    status         text NOT NULL DEFAULT 'OPEN',
    concurrency    integer NOT NULL,
    requests_per_s double precision,
    node           text,
    pid            integer,
    opened_at      timestamptz NOT NULL DEFAULT now(),
    started_at     timestamptz,
    closed_at      timestamptz,
    PRIMARY KEY (run_id, group_no),
    CONSTRAINT shard_group_status_known CHECK (status IN ('OPEN', 'CLOSED'))
);
CREATE INDEX shard_group_open ON collect.shard_group (lane) WHERE status = 'OPEN';

CREATE TABLE collect.shard (
    task_id       bigint NOT NULL REFERENCES collect.task (id) ON DELETE CASCADE,
    shard_no      integer NOT NULL,
    span_offset   bigint NOT NULL DEFAULT 0,
    span_size     bigint,
    status        text NOT NULL DEFAULT 'PENDING',
    fencing_token bigint NOT NULL DEFAULT 0,
    attempt       integer NOT NULL DEFAULT 0,
    run_id        text,
    group_no      integer,
    position      jsonb,
    pages         integer NOT NULL DEFAULT 0,
    rows_fetched  bigint NOT NULL DEFAULT 0,
    rows_landed   bigint NOT NULL DEFAULT 0,
    bad_rows      bigint NOT NULL DEFAULT 0,
    bytes         bigint NOT NULL DEFAULT 0,
    http_retries  integer NOT NULL DEFAULT 0,
    fetch_s       double precision NOT NULL DEFAULT 0,
    land_s        double precision NOT NULL DEFAULT 0,
    source_total  bigint,
    error         jsonb,
    started_at    timestamptz,
    progress_at   timestamptz,
    finished_at   timestamptz,
    PRIMARY KEY (task_id, shard_no),
    CONSTRAINT shard_status_known CHECK (status IN ('PENDING', 'RUNNING', 'DONE', 'FAILED')),
    CONSTRAINT shard_span_sane CHECK (span_offset >= 0 AND (span_size IS NULL OR span_size > 0))
) WITH (fillfactor = 60);
CREATE INDEX shard_by_group ON collect.shard (run_id, group_no);

CREATE TABLE collect.bad_row (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id  bigint NOT NULL REFERENCES collect.task (id) ON DELETE CASCADE,
    shard_no integer NOT NULL,
    page     integer NOT NULL,
    ordinal  integer NOT NULL,
    reason   text NOT NULL,
    row_text text NOT NULL,
    at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX bad_row_shard ON collect.bad_row (task_id, shard_no);
COMMENT ON COLUMN collect.bad_row.row_text IS 'The record as ASCII-escaped JSON: NUL and lone surrogates survive';

-- One row a target table: what swaps of disposition replace lock, and who swapped last.
CREATE TABLE collect.landing_target (
    table_name      text PRIMARY KEY,
    swapped_task_id bigint,
    swapped_at      timestamptz
);

CREATE TABLE collect.dead_letter (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id       bigint NOT NULL REFERENCES collect.task (id) ON DELETE CASCADE,
    generation    integer NOT NULL,
    error_message text NOT NULL,
    failed_at     timestamptz NOT NULL DEFAULT now(),
    retry_count   integer NOT NULL,
    confirmed_at  timestamptz,
    CONSTRAINT dead_letter_once UNIQUE (task_id, generation)
);
CREATE INDEX dead_letter_unconfirmed ON collect.dead_letter (id) WHERE confirmed_at IS NULL;

CREATE TABLE collect.task_log (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id     bigint NOT NULL REFERENCES collect.task (id) ON DELETE CASCADE,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    from_status text,
    to_status   text NOT NULL,
    attempt     integer NOT NULL,
    generation  integer NOT NULL,
    priority    smallint NOT NULL,
    reason      text,
    actor       text NOT NULL
);
CREATE INDEX task_log_task ON collect.task_log (task_id, id);

CREATE TABLE collect.trace (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id    bigint NOT NULL REFERENCES collect.task (id) ON DELETE CASCADE,
    shard_no   integer,
    attempt    integer NOT NULL,
    stage      text NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    duration_s double precision NOT NULL,
    rows       bigint,
    bytes      bigint,
    request    jsonb,
    response   jsonb,
    error      jsonb,
    CONSTRAINT trace_stage_known CHECK (stage IN (
        'admit', 'publish', 'claim', 'plan', 'fetch', 'land', 'settle', 'repair'))
);
CREATE INDEX trace_task ON collect.trace (task_id, id);

CREATE SEQUENCE collect.claim_id;

-- The legal moves, equal to collect_ops.tasks.lifecycle.MOVES (a test compares them). Checked here as well, so that
-- no statement, ours or an operator's, can make a move that the rest of the system does not know.
CREATE TABLE collect.legal_move (
    from_status text NOT NULL,
    to_status   text NOT NULL,
    PRIMARY KEY (from_status, to_status)
);
INSERT INTO collect.legal_move (from_status, to_status) VALUES
('CREATED', 'QUEUED'), ('CREATED', 'MERGED'), ('CREATED', 'CANCELLED'),
('QUEUED', 'CLAIMED'), ('QUEUED', 'HELD'), ('QUEUED', 'MERGED'), ('QUEUED', 'CANCELLED'), ('QUEUED', 'DEAD'),
('HELD', 'QUEUED'), ('HELD', 'MERGED'), ('HELD', 'CANCELLED'),
('CLAIMED', 'DISPATCHED'), ('CLAIMED', 'QUEUED'), ('CLAIMED', 'RETRYING'), ('CLAIMED', 'DEAD'),
('CLAIMED', 'DISPATCH_FAILED'), ('CLAIMED', 'CANCELLED'),
('DISPATCHED', 'RUNNING'), ('DISPATCHED', 'QUEUED'), ('DISPATCHED', 'COMPLETED'), ('DISPATCHED', 'PARTIAL'),
('DISPATCHED', 'RETRYING'), ('DISPATCHED', 'DEAD'), ('DISPATCHED', 'DISPATCH_FAILED'), ('DISPATCHED', 'CANCELLED'),
('RUNNING', 'COMPLETED'), ('RUNNING', 'PARTIAL'), ('RUNNING', 'RETRYING'), ('RUNNING', 'DEAD'),
('RUNNING', 'QUEUED'), ('RUNNING', 'CANCELLED'),
('RETRYING', 'CLAIMED'), ('RETRYING', 'HELD'), ('RETRYING', 'CANCELLED'), ('RETRYING', 'DEAD'),
('DISPATCH_FAILED', 'QUEUED'), ('DISPATCH_FAILED', 'DEAD'), ('DISPATCH_FAILED', 'CANCELLED'),
('DEAD', 'QUEUED');

CREATE FUNCTION collect.log_new_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO collect.task_log (task_id, to_status, attempt, generation, priority, reason, actor)
    SELECT n.id, n.status, n.attempt, n.generation, n.priority, n.reason, n.moved_by FROM new_rows AS n;
    RETURN NULL;
END $$;

-- Statement-level, over transition tables: ten thousand moves in one UPDATE cost one pass, not ten thousand calls.
CREATE FUNCTION collect.log_moves() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    illegal record;
BEGIN
    SELECT o.id, o.status AS from_status, n.status AS to_status INTO illegal
    FROM old_rows AS o
    JOIN new_rows AS n ON n.id = o.id
    LEFT JOIN collect.legal_move AS m ON m.from_status = o.status AND m.to_status = n.status
    WHERE o.status <> n.status AND m.from_status IS NULL
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'task %: % -> % is not a legal move', illegal.id, illegal.from_status, illegal.to_status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'task_legal_move';
    END IF;
    INSERT INTO collect.task_log (task_id, from_status, to_status, attempt, generation, priority, reason, actor)
    SELECT n.id, o.status, n.status, n.attempt, n.generation, n.priority, n.reason, n.moved_by
    FROM old_rows AS o
    JOIN new_rows AS n ON n.id = o.id
    WHERE o.status <> n.status OR o.generation <> n.generation;
    RETURN NULL;
END $$;

CREATE TRIGGER task_created AFTER INSERT ON collect.task
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION collect.log_new_tasks();
CREATE TRIGGER task_moved AFTER UPDATE ON collect.task
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION collect.log_moves();

-- What a person asks first: how far is it. Derived from the shards, so that landing transactions of one task do not
-- queue on its row.
CREATE VIEW collect.task_progress AS
SELECT
    t.id,
    t.source,
    t.status,
    t.reason,
    t.priority,
    t.lane,
    t.attempt,
    t.retry_count,
    t.lost_count,
    t.run_id,
    t.dag_id,
    t.total_rows,
    t.shards_total,
    t.created_at,
    t.started_at,
    t.finished_at,
    coalesce(s.shards_done, 0) AS shards_done,
    coalesce(s.shards_failed, 0) AS shards_failed,
    coalesce(s.rows_fetched, 0)::bigint AS rows_fetched,
    coalesce(s.rows_landed, 0)::bigint AS rows_landed,
    coalesce(s.bad_rows, 0)::bigint AS bad_rows,
    coalesce(s.bytes, 0)::bigint AS bytes,
    greatest(t.progress_at, s.progress_at) AS progress_at
FROM collect.task AS t
LEFT JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE status = 'DONE') AS shards_done,
        count(*) FILTER (WHERE status = 'FAILED') AS shards_failed,
        sum(rows_fetched) AS rows_fetched,
        sum(rows_landed) AS rows_landed,
        sum(bad_rows) AS bad_rows,
        sum(bytes) AS bytes,
        max(progress_at) AS progress_at
    FROM collect.shard
    WHERE task_id = t.id
) AS s ON true;
