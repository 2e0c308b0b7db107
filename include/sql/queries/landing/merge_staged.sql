-- Template: {target}, {staging}, the {columns} they share, the {key} columns, {same_key} (landed.k = chosen.k), and the
-- {changes} (column = EXCLUDED).
-- Upserts the staged rows by key. Returns how many rows were `written`, and how many of the page's rows are `repeated`: the
-- task has fetched their key before, in this page or in another. `since` leaves out what the shard landed before it started
-- over. Uses the table's primary key, twice; LATERAL with LIMIT keeps the planner, who knows nothing of the staged rows, from
-- reading the whole table instead.
-- Safe when several pages land at once: every page writes its keys in the same order (a CTE keeps that of its rows), so two
-- that share keys wait for each other and cannot deadlock; a key that another page of the task is landing at this very moment
-- is not counted. Of equal keys within a page the last stands (DISTINCT ON, later ordinals first).
-- A row is replaced by what was fetched later or at the same time, never by what was fetched earlier, in whatever
-- order pages commit. For that, a row whose content is the same is written too: it must carry the time of its last
-- fetch, or a page fetched between the two would pass for the latest.
WITH chosen AS MATERIALIZED (
    SELECT DISTINCT ON ({key}) {columns} FROM {staging} ORDER BY {key}, _ordinal DESC
),

known AS (
    SELECT count(*) AS row_count
    FROM chosen
    CROSS JOIN LATERAL (
        SELECT landed._task_id, landed._shard, landed._fetched_at
        FROM {target} AS landed
        WHERE {same_key}
        ORDER BY landed._fetched_at
        LIMIT 1
    ) AS there
    WHERE
        there._task_id = chosen._task_id
        AND (there._shard <> chosen._shard OR there._fetched_at >= coalesce(%(since)s::timestamptz, '-infinity'))
),

written AS (
    INSERT INTO {target} AS landed ({columns})
    SELECT {columns} FROM chosen
    ON CONFLICT ({key}) DO UPDATE SET {changes}
    WHERE landed._fetched_at <= excluded._fetched_at
    RETURNING 1
)

SELECT
    (SELECT count(*) FROM written) AS written,
    (SELECT count(*) FROM {staging}) - (SELECT count(*) FROM chosen) + (SELECT row_count FROM known) AS repeated
