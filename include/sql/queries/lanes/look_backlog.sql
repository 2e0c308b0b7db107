-- Whether the backlog is worth an evaluation this minute: something waits, a rule acts, or a pool is not as wanted, and no
-- sample of this minute is there. Indexes backlog_sample_once, task_open, backlog_action_open; the other two tables are small.
SELECT
    NOT EXISTS(SELECT 1 FROM collect.backlog_sample WHERE at = date_trunc('minute', now()))
    AND (
        EXISTS(
            SELECT 1 FROM collect.task
            WHERE
                status IN ('QUEUED', 'HELD', 'RETRYING')
                AND (status <> 'RETRYING' OR due_at IS NULL OR due_at <= now())
        )
        OR EXISTS(SELECT 1 FROM collect.backlog_state)
        OR EXISTS(SELECT 1 FROM collect.backlog_action WHERE ending_at IS NULL)
        OR EXISTS(SELECT 1 FROM collect.lane_setting WHERE pool_dirty)
    ) AS due
