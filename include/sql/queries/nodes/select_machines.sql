-- Whose the ids of some nodes are. Primary key.
SELECT id, machine, boot_id, name, address FROM collect.node WHERE id = ANY(%(node_ids)s)
