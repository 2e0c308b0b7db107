-- Shard groups that hold a slot of the lane: open ones, and those reserved by tasks that are claimed but not yet
-- planned. Indexes shard_group_open and task_open.
SELECT
    (SELECT count(*) FROM collect.shard_group WHERE lane = %(lane)s AND status = 'OPEN')
    + (
        SELECT coalesce(sum(groups_reserved), 0) FROM collect.task
        WHERE lane = %(lane)s AND status IN ('CLAIMED', 'DISPATCHED')
    ) AS used
