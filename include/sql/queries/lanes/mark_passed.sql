-- Records that a claim has seen the messages of these tasks, gives them back, and has taken later ones: they were passed
-- over on purpose and are not lost. The caller holds their locks (lock_named). Primary key.
UPDATE collect.task SET in_queue_at = now() WHERE id = ANY(%(task_ids)s::bigint[])
