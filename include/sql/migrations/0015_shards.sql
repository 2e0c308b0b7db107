-- Shards of every kind, and how fast a source was.

ALTER TABLE collect.shard
ADD COLUMN params jsonb,
ADD COLUMN label text,
ADD COLUMN units bigint;
COMMENT ON COLUMN collect.shard.params IS 'What it asks for beside its task''s params, which it overrides; NULL: nothing';
COMMENT ON COLUMN collect.shard.label IS 'What it asks for, for people; NULL: its rows, by offset and size';
COMMENT ON COLUMN collect.shard.units IS 'Keys of the key range that it asks for; NULL: it is measured by its rows';

-- A row a source, so that planning reads one row and not the shards of the past, which retention deletes.
CREATE TABLE collect.source_pace (
    source     text PRIMARY KEY,
    unit       text NOT NULL,
    shard_size bigint,
    rates      double precision [] NOT NULL DEFAULT '{}',
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT source_pace_unit_known CHECK (unit IN ('rows', 'keys')),
    CONSTRAINT source_pace_size_positive CHECK (shard_size > 0)
);
COMMENT ON TABLE collect.source_pace IS 'How fast a source was: what the size of its next shards follows from';
COMMENT ON COLUMN collect.source_pace.shard_size IS 'Aimed at when its newest task was cut';
COMMENT ON COLUMN collect.source_pace.rates IS 'Units a second of the shards that finished last, the newest first';
