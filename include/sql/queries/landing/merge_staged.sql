-- Template: {target}, {staging}, the {columns} they share, the {key} columns, the {changes} (column = EXCLUDED), a
-- condition on landed and EXCLUDED ({same_task}), and the names of two sequences ({repeated_name}, {skipped_name}).
-- Upserts the staged rows by key. Uses the table's primary key.
-- Safe when several pages land at once: every page writes its keys in the same order, so two that share keys wait for
-- each other and cannot deadlock. Of equal keys within a page the last stands (DISTINCT ON, later ordinals first).
-- A row is replaced by what was fetched later or at the same time, never by what was fetched earlier, in whatever
-- order pages commit. For that, a row whose content is the same is written too: it must carry the time of its last
-- fetch, or a page fetched between the two would pass for the latest.
-- Counts in passing, in sequences of the connection's own: keys that the task has fetched before, and rows that are
-- left as they are. The condition sees the row as it is locked, so the count is exact whoever lands beside us, and a key
-- that is new, or another task's, costs nothing.
INSERT INTO {target} AS landed ({columns})
SELECT DISTINCT ON ({key}) {columns} FROM {staging} ORDER BY {key}, _ordinal DESC
ON CONFLICT ({key}) DO UPDATE SET {changes}
WHERE
    CASE
        WHEN CASE WHEN {same_task} THEN nextval({repeated_name}) < 0 ELSE false END THEN false
        WHEN landed._fetched_at <= excluded._fetched_at THEN true
        ELSE nextval({skipped_name}) < 0
    END
