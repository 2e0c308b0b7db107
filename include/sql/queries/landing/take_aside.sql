-- Template: {target}, {aside} and the {columns} they share. Copies the aside rows in. The table itself stays, and with
-- it what stands on it: views, grants, indexes. The caller holds the target's row in collect.landing_target.
INSERT INTO {target} ({columns}) SELECT {columns} FROM {aside}
