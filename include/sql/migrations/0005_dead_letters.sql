-- Dead letters that can be searched, grouped, edited, sent again and discarded. A row is of a task, written with its move
-- to DEAD, or of a message that nobody could read; what collect.dead held of either is kept with it.
ALTER TABLE collect.dead_letter
ALTER COLUMN task_id DROP NOT NULL,
ALTER COLUMN generation DROP NOT NULL,
ADD COLUMN state text NOT NULL DEFAULT 'OPEN',
ADD COLUMN state_at timestamptz NOT NULL DEFAULT now(),
ADD COLUMN state_by text,
ADD COLUMN state_reason text,
ADD COLUMN source text,
ADD COLUMN error_class text,
ADD COLUMN pattern text,
ADD COLUMN fingerprint text,
ADD COLUMN redriven_attempt integer,
ADD COLUMN edits jsonb NOT NULL DEFAULT '[]',
ADD COLUMN drained_at timestamptz,
ADD COLUMN message_key bytea,
ADD COLUMN message_id text,
ADD COLUMN routing_key text,
ADD COLUMN headers jsonb,
ADD COLUMN properties jsonb,
ADD COLUMN x_death jsonb,
ADD COLUMN body bytea,
ADD COLUMN body_bytes bigint,
ADD COLUMN edited_body bytea,
ADD COLUMN send_exchange text,
ADD COLUMN send_routing_key text,
ADD CONSTRAINT dead_letter_of_something CHECK (task_id IS NOT NULL OR message_key IS NOT NULL),
ADD CONSTRAINT dead_letter_state_known CHECK (state IN ('OPEN', 'REDRIVEN', 'SETTLED', 'FAILED', 'DISCARDED')),
ADD CONSTRAINT dead_letter_message_once UNIQUE (message_key);

COMMENT ON COLUMN collect.dead_letter.pattern IS 'Class and message without what differs from case to case';
COMMENT ON COLUMN collect.dead_letter.fingerprint IS 'Of the pattern: equal for the same fault; NULL until the next look';
COMMENT ON COLUMN collect.dead_letter.redriven_attempt IS 'The task''s attempt when it was sent again: higher means claimed';
COMMENT ON COLUMN collect.dead_letter.message_key IS 'Of a message without a task: what tells it from others';
COMMENT ON COLUMN collect.dead_letter.body_bytes IS 'Of the whole body; more than is kept when it was cut';
COMMENT ON COLUMN collect.dead_letter.send_exchange IS 'Where a message without a task is sent to when redriven';

CREATE INDEX dead_letter_open ON collect.dead_letter (fingerprint, id) WHERE state = 'OPEN';
CREATE INDEX dead_letter_redriven ON collect.dead_letter (task_id) WHERE state = 'REDRIVEN' AND task_id IS NOT NULL;
CREATE INDEX dead_letter_unread ON collect.dead_letter (id) WHERE fingerprint IS NULL;
CREATE INDEX dead_letter_failed ON collect.dead_letter (failed_at);

-- Sending many again, at a rate: goes on when whoever drove it has died, and ends when it is cancelled.
CREATE TABLE collect.redrive (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asked        jsonb NOT NULL,
    rate_per_s   double precision,
    reason       text NOT NULL,
    requested_by text NOT NULL,
    total        integer NOT NULL,
    credit       double precision NOT NULL DEFAULT 1,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    stepped_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    cancelled_at timestamptz,
    cancelled_by text,
    CONSTRAINT redrive_rate_positive CHECK (rate_per_s > 0)
);
CREATE INDEX redrive_open ON collect.redrive (id) WHERE finished_at IS NULL;
COMMENT ON COLUMN collect.redrive.asked IS 'What was asked for: ids, a group, a filter';
COMMENT ON COLUMN collect.redrive.credit IS 'Letters that the rate allows and the last step has not used';

CREATE TABLE collect.redrive_item (
    redrive_id     bigint NOT NULL REFERENCES collect.redrive (id) ON DELETE CASCADE,
    dead_letter_id bigint NOT NULL REFERENCES collect.dead_letter (id) ON DELETE CASCADE,
    state          text NOT NULL DEFAULT 'PENDING',
    answer         text,
    at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (redrive_id, dead_letter_id),
    CONSTRAINT redrive_item_state_known CHECK (state IN ('PENDING', 'DONE', 'SKIPPED', 'CANCELLED', 'TAKEN_BACK'))
);
CREATE INDEX redrive_item_pending ON collect.redrive_item (redrive_id, dead_letter_id) WHERE state = 'PENDING';
CREATE INDEX redrive_item_letter ON collect.redrive_item (dead_letter_id);

-- The holder's generation when it took its key. A DEAD task that is sent again keeps its id: without this, who judges
-- the holder by an older snapshot would still see it DEAD and take the key from live work.
ALTER TABLE collect.dedup ADD COLUMN generation integer NOT NULL DEFAULT 1;

-- What is sent again may be held, and is taken back from there.
INSERT INTO collect.legal_move (from_status, to_status) VALUES ('HELD', 'DEAD');
