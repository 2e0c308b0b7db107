-- Merging: similar tasks that wait become one. The merged ones wait for their survivor and settle with it.
ALTER TABLE collect.task
ADD COLUMN merge_key bytea,
ADD COLUMN merged_into bigint REFERENCES collect.task (id) ON DELETE SET NULL,
ADD COLUMN merged_task_ids bigint [] NOT NULL DEFAULT '{}',
ADD COLUMN own_params jsonb,
ADD COLUMN withdrawn_at timestamptz,
ADD COLUMN deadline timestamptz;

COMMENT ON COLUMN collect.task.merge_key IS 'Equal for tasks that may be merged: everything but the mergeable params';
COMMENT ON COLUMN collect.task.merged_task_ids IS 'Of a survivor: every task that was merged into it';
COMMENT ON COLUMN collect.task.own_params IS 'Of a survivor: what its own caller asked for; params is what all asked for';
COMMENT ON COLUMN collect.task.withdrawn_at IS 'Of a survivor: its own caller cancelled, and the work goes on for others';
COMMENT ON COLUMN collect.task.deadline IS 'When the caller needs the rows at the latest; of a survivor the earliest';

-- Tasks that may be merged with what comes; those that wait for a survivor.
CREATE INDEX task_mergeable ON collect.task (merge_key)
WHERE merge_key IS NOT NULL AND status IN ('QUEUED', 'HELD');
CREATE INDEX task_merged_into ON collect.task (merged_into) WHERE merged_into IS NOT NULL;

INSERT INTO collect.legal_move (from_status, to_status) VALUES
('MERGED', 'COMPLETED'), ('MERGED', 'PARTIAL'), ('MERGED', 'DEAD'), ('MERGED', 'CANCELLED'),
-- A survivor that is redriven takes those back that settled with it.
('DEAD', 'MERGED');

-- A merged task shows the progress of the work it waits for, and when that has ended its own share.
CREATE OR REPLACE VIEW collect.task_progress AS
SELECT
    t.id,
    t.source,
    t.status,
    t.reason,
    t.priority,
    t.lane,
    t.attempt,
    t.retry_count,
    t.lost_count,
    t.run_id,
    t.dag_id,
    t.total_rows,
    t.shards_total,
    t.created_at,
    t.started_at,
    t.finished_at,
    coalesce(s.shards_done, 0) AS shards_done,
    coalesce(s.shards_failed, 0) AS shards_failed,
    coalesce(s.rows_fetched, (t.result ->> 'rows_landed')::bigint, 0)::bigint AS rows_fetched,
    coalesce(s.rows_landed, (t.result ->> 'rows_landed')::bigint, 0)::bigint AS rows_landed,
    coalesce(s.bad_rows, 0)::bigint AS bad_rows,
    coalesce(s.bytes, 0)::bigint AS bytes,
    greatest(t.progress_at, s.progress_at) AS progress_at,
    t.merged_into,
    t.merged_task_ids,
    t.deadline,
    t.withdrawn_at
FROM collect.task AS t
LEFT JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE status = 'DONE') AS shards_done,
        count(*) FILTER (WHERE status = 'FAILED') AS shards_failed,
        sum(rows_fetched) AS rows_fetched,
        sum(rows_landed) AS rows_landed,
        sum(bad_rows) AS bad_rows,
        sum(bytes) AS bytes,
        max(progress_at) AS progress_at
    FROM collect.shard
    WHERE task_id = CASE WHEN t.status = 'MERGED' THEN t.merged_into ELSE t.id END
) AS s ON true;
