-- Conditional requests (RFC 9110 section 13): what a page was known by when its rows landed.

-- A table's epoch rises with everything that makes rows of a page that landed before not be there, or not be what its
-- declaration makes of it: rows deleted, the table emptied or made anew, another declaration that landed in it. What is
-- remembered of pages holds for one epoch.
ALTER TABLE collect.landing_target
ADD COLUMN table_oid oid,
ADD COLUMN version bytea,
ADD COLUMN epoch bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN collect.landing_target.version IS
'Whose conditional pages landed last (collect.source_version); NULL when other rows have landed since';

CREATE TABLE collect.page_validator (
    table_name    text NOT NULL,
    request       bytea NOT NULL,
    epoch         bigint NOT NULL,
    source        text NOT NULL,
    etag          text,
    last_modified text,
    rows          integer NOT NULL,
    total         bigint,
    following     jsonb,
    fetched_at    timestamptz NOT NULL,
    seen_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_name, request),
    CONSTRAINT page_validator_validates CHECK (etag IS NOT NULL OR last_modified IS NOT NULL),
    CONSTRAINT page_validator_rows_sane CHECK (rows > 0)
);
CREATE INDEX page_validator_seen ON collect.page_validator (seen_at);
COMMENT ON TABLE collect.page_validator IS 'A page whose rows have all landed, and what its server knows it by';
COMMENT ON COLUMN collect.page_validator.request IS 'SHA-256 of method, URL, headers and body, without credentials';
COMMENT ON COLUMN collect.page_validator.following IS 'Where the page says that paging goes on';

ALTER TABLE collect.shard
ADD COLUMN unchanged_pages integer NOT NULL DEFAULT 0,
ADD COLUMN unchanged_rows bigint NOT NULL DEFAULT 0;

-- On tables that conditional sources land in: rows that somebody deletes are asked for again. Whoever may delete rows
-- need not see this schema.
CREATE FUNCTION collect.forget_pages() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    UPDATE collect.landing_target SET epoch = epoch + 1 WHERE table_oid = TG_RELID;
    RETURN NULL;
END $$;
