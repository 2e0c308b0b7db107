-- Template: {target}. Deletes all rows of a target that is being swapped. Not TRUNCATE, which would make readers wait
-- and would show an empty table to older snapshots. The caller holds the target's row in collect.landing_target.
DELETE FROM {target}
