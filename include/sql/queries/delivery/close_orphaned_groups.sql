-- Open shard groups that no task under way names as its run: they would hold their slots for ever. Index
-- shard_group_open. `unsent`: it waits at a node that has not started it.
UPDATE collect.shard_group AS g
SET status = 'CLOSED', closed_at = now()
WHERE
    g.status = 'OPEN'
    AND g.opened_at < now() - make_interval(secs => %(grace_s)s)
    AND NOT EXISTS (
        SELECT FROM collect.task AS t
        WHERE t.run_id = g.run_id AND t.status IN ('CLAIMED', 'DISPATCHED', 'RUNNING')
    )
RETURNING g.run_id, g.lane, g.placed_node IS NOT NULL AND g.started_at IS NULL AS unsent
