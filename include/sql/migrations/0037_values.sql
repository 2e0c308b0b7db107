-- What a shard has fetched twice, and since when its rows count. Safe beside running processes: they neither name nor need
-- these columns.

-- Rows of a merge whose key the task had fetched before, counted as they land.
ALTER TABLE collect.shard ADD COLUMN rows_repeated bigint NOT NULL DEFAULT 0;

-- When a shard that had landed rows started over: what it landed before is not fetched twice. NULL: it never did.
ALTER TABLE collect.shard ADD COLUMN landed_since timestamptz;
