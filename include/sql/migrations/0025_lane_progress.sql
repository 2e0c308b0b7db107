-- How far each lane has come, so that a task whose message is gone is found although its lane's queue is never empty: its
-- queue delivers by priority and age, so a task that waits while later ones are claimed is not in it.
-- Nothing that runs beside this reads or needs it.

-- A row a lane and priority: written with each claim, which is the lane's only one at its time.
CREATE TABLE collect.lane_progress (
    lane      text NOT NULL,
    priority  smallint NOT NULL,
    queued_at timestamptz NOT NULL,
    PRIMARY KEY (lane, priority)
) WITH (fillfactor = 50);
COMMENT ON TABLE collect.lane_progress IS 'The youngest publication that was claimed, by lane and priority';

ALTER TABLE collect.task ADD COLUMN in_queue_at timestamptz;
COMMENT ON COLUMN collect.task.in_queue_at IS
'When its message was last known to be in its queue: confirmed by the broker, or given back by a claim that took later ones';

-- What waits, by the moment since which its message should be in its queue: whoever looks for overdue ones reads those.
CREATE INDEX task_waiting ON collect.task (lane, status, priority, greatest(queued_at, due_at))
WHERE status IN ('QUEUED', 'RETRYING');

-- The outbox: nearly empty at all times. Instead of task_unconfirmed, which kept what ended before it was confirmed, such as
-- tasks that were cancelled while the broker was away.
CREATE INDEX task_outbox ON collect.task (queued_at) WHERE confirmed_generation < generation AND finished_at IS NULL;
DROP INDEX collect.task_unconfirmed;
