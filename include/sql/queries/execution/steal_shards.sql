-- A shard group that has nothing left takes over half of what the open group of its run with the most unstarted shards
-- has not started, or handed back, from its end: that one works from its beginning. Waits for nobody: a shard that another is taking
-- is passed over, so two thieves get different ones, and what the victim has just taken stays its own. Index
-- shard_by_group. Returns what there is to do, as select_group_shards does.
WITH victim AS (
    SELECT s.group_no, count(*) AS unstarted
    FROM collect.shard AS s
    JOIN collect.shard_group AS g ON g.run_id = s.run_id AND g.group_no = s.group_no
    JOIN collect.task AS t ON t.id = s.task_id
    WHERE
        s.run_id = %(run_id)s AND s.group_no <> %(group_no)s AND s.status = 'PENDING'
        AND (g.status = 'OPEN' OR g.handed_back)
        AND s.task_id <> ALL(%(unfit)s::bigint[])
        AND t.run_id = %(run_id)s AND t.status IN ('DISPATCHED', 'RUNNING')
        AND EXISTS (
            SELECT FROM collect.shard_group AS own
            WHERE own.run_id = %(run_id)s AND own.group_no = %(group_no)s AND own.status = 'OPEN'
        )
    GROUP BY s.group_no
    ORDER BY unstarted DESC, s.group_no
    LIMIT 1
),

block AS (
    SELECT s.task_id, s.shard_no
    FROM collect.shard AS s
    JOIN victim AS v ON v.group_no = s.group_no
    WHERE s.run_id = %(run_id)s AND s.status = 'PENDING' AND s.task_id <> ALL(%(unfit)s::bigint[])
    ORDER BY s.task_id DESC, s.shard_no DESC
    LIMIT (SELECT (unstarted + 1) / 2 FROM victim)
    FOR UPDATE OF s SKIP LOCKED
),

stolen AS (
    UPDATE collect.shard AS s
    SET group_no = %(group_no)s
    FROM block AS b
    WHERE s.task_id = b.task_id AND s.shard_no = b.shard_no AND s.run_id = %(run_id)s AND s.status = 'PENDING'
    RETURNING s.task_id, s.shard_no, s.span_offset, s.span_size, s.params
)

SELECT
    s.task_id, s.shard_no, s.span_offset, s.span_size, s.params AS shard_params, t.attempt, t.source, t.path, t.params,
    encode(t.source_version, 'hex') AS version, (SELECT group_no FROM victim) AS stolen_from
FROM stolen AS s
JOIN collect.task AS t ON t.id = s.task_id
ORDER BY s.task_id, s.shard_no
