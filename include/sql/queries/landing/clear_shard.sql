-- Template: {target} is the table that rows of disposition append or replace land in.
-- Deletes what an earlier run of the shard left, so that a shard that is run again replaces its rows. Uses the
-- table's index on (_task_id, _shard). The caller's transaction holds the shard's row, so nobody else writes them.
DELETE FROM {target} WHERE _task_id = %(task_id)s AND _shard = %(shard_no)s
