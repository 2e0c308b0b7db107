-- migrate: outside a transaction
-- HELD tasks in the order in which they are released. Few rows at any time: what is released, and what a claim holds a
-- newcomer behind, is the beginning of a range.
CREATE INDEX CONCURRENTLY IF NOT EXISTS task_held ON collect.task (source, source_version, priority DESC, id)
WHERE status = 'HELD' AND held_for IS NULL;
