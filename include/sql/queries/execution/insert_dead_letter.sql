-- A dead letter, written with the move to DEAD; the outbox brings it to collect.dead. Unique a generation.
INSERT INTO collect.dead_letter (task_id, generation, error_message, retry_count)
VALUES (%(task_id)s, %(generation)s, %(error_message)s, %(retry_count)s)
ON CONFLICT ON CONSTRAINT dead_letter_once DO NOTHING
