-- Template: {target}, {staging} and the {columns} they share.
-- Writes the staged rows. Only for pages whose rows had to be cast one by one: others are copied into the table
-- without staging. The staging table is this connection's own; the caller's transaction holds the shard's row.
INSERT INTO {target} ({columns}) SELECT {columns} FROM {staging} ORDER BY _ordinal
