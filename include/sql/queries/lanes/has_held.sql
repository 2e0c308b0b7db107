-- Whether a task is held for a limit, a host or an endpoint: mostly none is, and each task that ends asks. Index task_held.
SELECT EXISTS(SELECT 1 FROM collect.task WHERE status = 'HELD' AND held_for IS NULL) AS held
