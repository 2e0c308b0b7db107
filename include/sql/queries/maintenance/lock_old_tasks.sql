-- The next tasks that ended longer ago than %(keep_s)s, in the order of their ends, locked: nobody redrives, cancels or
-- takes them back meanwhile. Those that somebody else holds are left out, so two passes share the work. The transaction
-- goes on with judge_tasks. Index task_finished.
SELECT id, finished_at, status
FROM collect.task
WHERE
    finished_at < now() - make_interval(secs => %(keep_s)s)
    AND (finished_at, id) > (%(after_at)s::timestamptz, %(after_id)s::bigint)
ORDER BY finished_at, id
LIMIT %(most)s
FOR UPDATE SKIP LOCKED
