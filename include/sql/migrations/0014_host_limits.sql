-- Hosts: a circuit breaker instead of a count of failures, pauses that a host asks for, quotas of a day; and attempts that
-- end because of them, without being failed or lost. All columns have constant defaults: no table is rewritten.
ALTER TABLE collect.host
    ADD COLUMN since            timestamptz,
    ADD COLUMN probes           integer NOT NULL DEFAULT 0,
    ADD COLUMN window_from      timestamptz NOT NULL DEFAULT '1970-01-01 00:00:00+00',
    ADD COLUMN requests         integer NOT NULL DEFAULT 0,
    ADD COLUMN errors           integer NOT NULL DEFAULT 0,
    ADD COLUMN requests_before  integer NOT NULL DEFAULT 0,
    ADD COLUMN errors_before    integer NOT NULL DEFAULT 0,
    ADD COLUMN paused_until     timestamptz,
    ADD COLUMN pause_reason     text;
UPDATE collect.host SET since = changed_at WHERE held_until IS NOT NULL;
COMMENT ON COLUMN collect.host.failures IS 'Requests in a row that got no answer';
COMMENT ON COLUMN collect.host.holds IS 'Openings in a row: each lasts longer than the one before';
COMMENT ON COLUMN collect.host.held_until IS 'NULL: closed. Open until then; while probing: probes are waited for until then';
COMMENT ON COLUMN collect.host.probing IS 'Half-open';
COMMENT ON COLUMN collect.host.since IS 'When it was last closed and opened: attempts claimed later are probes';
COMMENT ON COLUMN collect.host.probes IS 'Requests let through since it is half-open';
COMMENT ON COLUMN collect.host.window_from IS 'Beginning of the window that requests and errors are counted in';
COMMENT ON COLUMN collect.host.requests_before IS 'Of the window before';
COMMENT ON COLUMN collect.host.paused_until IS 'The host asked for patience, or its quota is used up: nothing is sent until then';

-- What has been given out of a host's quota on a day (UTC, by this database's clock), in blocks.
CREATE TABLE collect.host_quota (
    connection text PRIMARY KEY,
    day        date NOT NULL,
    quota      bigint NOT NULL,
    granted    bigint NOT NULL DEFAULT 0,
    CONSTRAINT host_quota_kept CHECK (granted >= 0)
);
COMMENT ON TABLE collect.host_quota IS 'Requests of a day that were given out; what a killed process had left of a block is lost';
COMMENT ON COLUMN collect.host_quota.quota IS 'As the source that asked last declares it';

INSERT INTO collect.legal_move (from_status, to_status) VALUES ('DISPATCHED', 'HELD'), ('RUNNING', 'HELD');
