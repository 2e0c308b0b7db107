-- Deletes the bad rows that an earlier run of the shard left. Uses bad_row_shard. The caller's transaction holds the
-- shard's row, so nobody else writes bad rows of this shard.
DELETE FROM collect.bad_row WHERE task_id = %(task_id)s AND shard_no = %(shard_no)s
