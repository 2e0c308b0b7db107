-- The shards of a group, whatever their state: the others have been taken over by groups that had nothing left. Index
-- shard_by_group.
SELECT task_id, shard_no FROM collect.shard
WHERE run_id = %(run_id)s AND group_no = %(group_no)s
