-- Priorities that live: what was asked for beside what it is now, and who changed it from what.
ALTER TABLE collect.task
-- Also for what stores tasks as it did before.
ADD COLUMN base_priority smallint NOT NULL DEFAULT 5,
ADD COLUMN emergency boolean NOT NULL DEFAULT false,
ADD COLUMN pinned boolean NOT NULL DEFAULT false,
ADD COLUMN aged_from timestamptz NOT NULL DEFAULT now();
UPDATE collect.task SET base_priority = priority, aged_from = queued_at;
ALTER TABLE collect.task ADD CONSTRAINT task_base_priority_range CHECK (base_priority BETWEEN 0 AND 10);

COMMENT ON COLUMN collect.task.base_priority IS 'What was asked for; priority is that with the boosts of the formula';
COMMENT ON COLUMN collect.task.pinned IS 'Set by hand: of the formula only ageing is added';
COMMENT ON COLUMN collect.task.aged_from IS 'Since when it waits for its next attempt, for ageing';

-- What waits longest: the pass that evaluates priorities anew reads those that can have aged.
CREATE INDEX task_ageing ON collect.task (aged_from) WHERE status IN ('QUEUED', 'HELD', 'RETRYING');

ALTER TABLE collect.task_log ADD COLUMN from_priority smallint;

CREATE OR REPLACE FUNCTION collect.log_moves() RETURNS trigger LANGUAGE plpgsql SET enable_nestloop = off AS $$
DECLARE
    illegal record;
BEGIN
    SELECT o.id, o.status AS from_status, n.status AS to_status INTO illegal
    FROM old_rows AS o
    JOIN new_rows AS n ON n.id = o.id
    LEFT JOIN collect.legal_move AS m ON m.from_status = o.status AND m.to_status = n.status
    WHERE o.status <> n.status AND m.from_status IS NULL
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'task %: % -> % is not a legal move', illegal.id, illegal.from_status, illegal.to_status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'task_legal_move';
    END IF;
    INSERT INTO collect.task_log (
        task_id, from_status, to_status, attempt, generation, from_priority, priority, reason, actor
    )
    SELECT n.id, o.status, n.status, n.attempt, n.generation, o.priority, n.priority, n.reason, n.moved_by
    FROM old_rows AS o
    JOIN new_rows AS n ON n.id = o.id
    WHERE o.status <> n.status OR o.generation <> n.generation OR o.priority <> n.priority;
    RETURN NULL;
END $$;
