-- Circuits of endpoints beside those of hosts.
-- Safe beside running processes of the release before: they know nothing of the table and the column, and go on holding
-- whole hosts until they end.

-- When the host last answered a probe: what its endpoints failed before that says nothing about it any more.
ALTER TABLE collect.host ADD COLUMN answered_at timestamptz;
COMMENT ON COLUMN collect.host.failures IS 'Requests in a row for which no connection could be made';
COMMENT ON COLUMN collect.host.answered_at IS 'When its circuit was last closed by an answer';

CREATE TABLE collect.endpoint (
    connection      text NOT NULL,
    source          text NOT NULL,
    failures        integer NOT NULL DEFAULT 0,
    holds           integer NOT NULL DEFAULT 0,
    held_until      timestamptz,
    probing         boolean NOT NULL DEFAULT false,
    probes          integer NOT NULL DEFAULT 0,
    since           timestamptz,
    window_from     timestamptz NOT NULL DEFAULT '1970-01-01 00:00:00+00',
    requests        integer NOT NULL DEFAULT 0,
    errors          integer NOT NULL DEFAULT 0,
    requests_before integer NOT NULL DEFAULT 0,
    errors_before   integer NOT NULL DEFAULT 0,
    unanswered_at   timestamptz,
    last_error      text,
    changed_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT endpoint_pkey PRIMARY KEY (connection, source)
);
COMMENT ON TABLE collect.endpoint IS 'What a source asks of a connection, as far as it fails, or is asked beside others that do; a row goes after a quiet day';
COMMENT ON COLUMN collect.endpoint.failures IS 'Requests in a row that got no answer';
COMMENT ON COLUMN collect.endpoint.holds IS 'Openings in a row: each lasts longer than the one before';
COMMENT ON COLUMN collect.endpoint.held_until IS 'NULL: closed. Open until then; while probing: probes are waited for until then';
COMMENT ON COLUMN collect.endpoint.probing IS 'Half-open';
COMMENT ON COLUMN collect.endpoint.since IS 'When it left closed, without the time that its host was held since';
COMMENT ON COLUMN collect.endpoint.probes IS 'Requests let through since it is half-open';
COMMENT ON COLUMN collect.endpoint.window_from IS 'Beginning of the window that requests and errors are counted in';
COMMENT ON COLUMN collect.endpoint.requests_before IS 'Of the window before';
COMMENT ON COLUMN collect.endpoint.unanswered_at IS 'When a request last got no answer; NULL once one has been answered';
