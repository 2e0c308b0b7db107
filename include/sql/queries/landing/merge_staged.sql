-- Template: {target}, {staging}, the {columns} they share, the {key} columns, and the {changes} (column = EXCLUDED).
-- Upserts the staged rows by key. Uses the table's primary key.
-- Safe when several pages land at once: every page writes its keys in the same order, so two that share keys wait for
-- each other and cannot deadlock. Of equal keys within a page the last stands (DISTINCT ON, later ordinals first).
-- A row is replaced by what was fetched later or at the same time, never by what was fetched earlier, in whatever
-- order pages commit. For that, a row whose content is the same is written too: it must carry the time of its last
-- fetch, or a page fetched between the two would pass for the latest.
INSERT INTO {target} AS landed ({columns})
SELECT DISTINCT ON ({key}) {columns} FROM {staging} ORDER BY {key}, _ordinal DESC
ON CONFLICT ({key}) DO UPDATE SET {changes}
WHERE landed._fetched_at <= EXCLUDED._fetched_at
