-- Remembers how far traces or bad rows are deleted; never goes back, also when two do it at once. Primary key.
INSERT INTO collect.retention_mark AS m (kind, finished_at, task_id)
VALUES (%(kind)s, %(finished_at)s, %(task_id)s)
ON CONFLICT (kind) DO UPDATE SET finished_at = excluded.finished_at, task_id = excluded.task_id
WHERE (m.finished_at, m.task_id) < (excluded.finished_at, excluded.task_id)
