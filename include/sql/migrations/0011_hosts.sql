-- Hosts that did not answer: what waits for them is held, for a time that grows, and let through again one by one.
CREATE TABLE collect.host (
    connection text PRIMARY KEY,
    failures   integer NOT NULL DEFAULT 0,
    holds      integer NOT NULL DEFAULT 0,
    held_until timestamptz,
    probing    boolean NOT NULL DEFAULT false,
    last_error text,
    changed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE collect.host IS 'A connection, as far as it does not answer; most have no row';
COMMENT ON COLUMN collect.host.failures IS 'Connection failures in a row';
COMMENT ON COLUMN collect.host.holds IS 'Holds in a row: each lasts longer than the one before';
COMMENT ON COLUMN collect.host.held_until IS 'Until then nothing is claimed; after that one task is let through, to see';
