-- What rules have set for a lane. Primary key. Read while claiming; a change counts with the next claim.
SELECT slots, groups_per_task, pack FROM collect.lane_setting
WHERE lane = %(lane)s
