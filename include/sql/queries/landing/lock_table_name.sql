-- Makes whoever creates, checks or swaps the target of this name wait for its turn, until the transaction ends: two
-- CREATE TABLE IF NOT EXISTS at once can fail on the catalogue's own unique index. No table is read or locked.
SELECT pg_advisory_xact_lock(hashtextextended('collect_ops.landing.' || %(table_name)s, 0))
