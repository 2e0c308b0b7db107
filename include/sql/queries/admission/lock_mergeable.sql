-- Tasks under some merge keys that wait and are open to be merged: never claimed, admitted within the source's window,
-- not withdrawn. Locked in id order until the merge commits; what a claim, a cancel or another merge has in hand is left
-- out, so that nobody waits. Index task_mergeable.
SELECT t.id, t.merge_key, t.params
FROM collect.task AS t
JOIN unnest(%(keys)s::bytea[], %(windows_s)s::float8[]) AS k (merge_key, window_s) ON t.merge_key = k.merge_key
WHERE
    t.status IN ('QUEUED', 'HELD')
    AND t.attempt = 0
    AND t.withdrawn_at IS NULL
    AND t.created_at >= now() - make_interval(secs => k.window_s)
ORDER BY t.id
FOR NO KEY UPDATE OF t SKIP LOCKED
