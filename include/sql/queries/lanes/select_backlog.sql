-- What waits, came in and ended, by lane and source; only lanes and sources that have something. Merged tasks are left
-- out: they are part of their survivor's work. Cancelled tasks are no completions. A task that is sent again after its
-- end is no arrival. Indexes task_open, task_created, task_finished. Reads one snapshot.
WITH waiting AS (
    SELECT
        lane,
        source,
        count(*) AS depth,
        count(*) FILTER (WHERE status = 'HELD') AS held,
        min(CASE WHEN attempt = 0 THEN created_at ELSE coalesce(due_at, queued_at) END) AS oldest_at
    FROM collect.task
    WHERE status IN ('QUEUED', 'HELD', 'RETRYING') AND (status <> 'RETRYING' OR due_at IS NULL OR due_at <= now())
    GROUP BY lane, source
),

arrived AS (
    SELECT
        lane,
        source,
        count(*) FILTER (WHERE created_at > now() - interval '1 minute') AS m1,
        count(*) FILTER (WHERE created_at > now() - interval '5 minutes') AS m5,
        count(*) AS m15
    FROM collect.task
    WHERE created_at > now() - interval '15 minutes' AND merged_into IS NULL
    GROUP BY lane, source
),

completed AS (
    SELECT
        lane,
        source,
        count(*) FILTER (WHERE finished_at > now() - interval '1 minute') AS m1,
        count(*) FILTER (WHERE finished_at > now() - interval '5 minutes') AS m5,
        count(*) AS m15
    FROM collect.task
    WHERE
        finished_at > now() - interval '15 minutes'
        AND merged_into IS NULL
        AND status IN ('COMPLETED', 'PARTIAL', 'DEAD')
    GROUP BY lane, source
)

SELECT
    lane,
    source,
    coalesce(w.depth, 0) AS depth,
    coalesce(w.held, 0) AS held,
    coalesce(extract(EPOCH FROM clock_timestamp() - w.oldest_at), 0)::double precision AS oldest_s,
    coalesce(a.m1, 0) AS arrivals_1,
    coalesce(a.m5, 0) AS arrivals_5,
    coalesce(a.m15, 0) AS arrivals_15,
    coalesce(c.m1, 0) AS completions_1,
    coalesce(c.m5, 0) AS completions_5,
    coalesce(c.m15, 0) AS completions_15
FROM waiting AS w
FULL JOIN arrived AS a USING (lane, source)
FULL JOIN completed AS c USING (lane, source)
ORDER BY lane, source
