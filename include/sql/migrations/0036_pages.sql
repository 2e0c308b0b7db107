-- Pages that come again are noticed; a shard whose cursor has expired begins anew, once.
-- Safe beside running processes: they neither name nor need what is added.

-- What the rows of a task's pages are known by, while the task runs: a page that is there already is refused. Without a
-- foreign key, which would lock the task's row with every page; the row goes with its task when that settles or is deleted.
CREATE TABLE collect.page_fingerprint (
    task_id     bigint NOT NULL,
    fingerprint bytea NOT NULL,
    shard_no    integer NOT NULL,
    page        integer NOT NULL,
    PRIMARY KEY (task_id, fingerprint)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);
COMMENT ON TABLE collect.page_fingerprint IS 'What the rows of a landed page are known by, until its task has ended well';
COMMENT ON COLUMN collect.page_fingerprint.fingerprint IS
'SHA-256, cut to 16 bytes, of the keys of the page''s records as sent; of whole records without a declared key';

-- How often a shard has begun anew because the place to go on from was gone.
ALTER TABLE collect.shard ADD COLUMN restarts integer NOT NULL DEFAULT 0;
