-- The shard groups that run on a node shall hand back what they have not done; each does so when it next says that it
-- lives. Partial index of open groups. Returns how many.
WITH asked AS (
    UPDATE collect.shard_group SET hand_back = true
    WHERE status = 'OPEN' AND node = %(node_id)s AND started_at IS NOT NULL
    RETURNING run_id
)

SELECT count(*) AS groups FROM asked
