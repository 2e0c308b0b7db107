-- What a batch of thousands costs, and a claim under a backlog of thousands.

-- The check and the log of moves join the rows as they were with the rows as they are. Planned with a LIMIT, or once for
-- a single row and then kept by the session, that was a loop over one for each of the other: a thousand rows took
-- 130 ms, ten thousand a hundred times that.
ALTER FUNCTION collect.log_moves() SET enable_nestloop = off;

-- A request id is registered together with the task id that it is meant to get, before that task is stored: one write
-- of the row instead of two. The order within the transaction is free, its end is not.
ALTER TABLE collect.submission ALTER CONSTRAINT submission_task_id_fkey DEFERRABLE INITIALLY DEFERRED;

-- A claim asks for each task what its source's last completed one was like. Over task_source_recent it looked through
-- everything that waits behind: 8,000 tasks claimed from such a backlog took 13 s.
CREATE INDEX task_source_completed ON collect.task (source, id DESC) WHERE status = 'COMPLETED';
