-- Records how far a claim has come: of each priority the youngest publication that it took. Never goes back. The caller
-- holds the lane's lock. Primary key.
INSERT INTO collect.lane_progress AS p (lane, priority, queued_at)
SELECT %(lane)s, n.priority, max(n.queued_at)
FROM unnest(%(priorities)s::smallint[], %(queued_at)s::timestamptz[]) AS n (priority, queued_at)
GROUP BY n.priority
ON CONFLICT (lane, priority) DO UPDATE SET queued_at = excluded.queued_at WHERE p.queued_at < excluded.queued_at
