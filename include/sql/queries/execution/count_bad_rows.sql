-- Bad rows of a shard so far. Primary key; the caller holds its lock, so nobody adds to them meanwhile.
SELECT bad_rows FROM collect.shard WHERE task_id = %(task_id)s AND shard_no = %(shard_no)s
