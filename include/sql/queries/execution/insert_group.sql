-- Opens a shard group: it holds a slot of its lane until it is closed. Primary key; an existing one stays.
INSERT INTO collect.shard_group (run_id, group_no, lane, label, concurrency, requests_per_s, placed_node, map_index)
VALUES (
    %(run_id)s, %(group_no)s, %(lane)s, %(label)s, %(concurrency)s, %(requests_per_s)s, %(placed_node)s, %(map_index)s
)
ON CONFLICT (run_id, group_no) DO NOTHING
