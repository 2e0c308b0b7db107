-- A drain ends when a later start of the node's agent says that it lives: the one that ran when the node was drained is
-- named here, since its first heartbeat may not have been taken in yet.
ALTER TABLE collect.node ADD COLUMN drain_boot_id text;
COMMENT ON COLUMN collect.node.drain_boot_id IS 'The start of its agent that ran when it was drained last';

ALTER TABLE collect.shard_group ADD COLUMN hand_back boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN collect.shard_group.hand_back IS 'Its worker ends: it shall hand back what it has not done';
