-- A declaration is stored as it was declared: without defaults, in declared order, with the number of the least format
-- that can read it. `definition` goes on to hold it with every default: statements decide by it, and processes of
-- release 0.1.0, which write nothing else, read it. Format 0 is theirs.
ALTER TABLE collect.source_version
    ADD COLUMN format smallint NOT NULL DEFAULT 0,
    ADD COLUMN declared json,
    ADD CONSTRAINT source_version_declared CHECK (format = 0 OR declared IS NOT NULL);

COMMENT ON COLUMN collect.source_version.format IS 'The least format that can read it; 0: written by release 0.1.0';
COMMENT ON COLUMN collect.source_version.declared IS 'What was declared, without defaults; its hash is the version';
COMMENT ON COLUMN collect.source_version.definition IS 'The same with the defaults that release 0.1.0 knows';
