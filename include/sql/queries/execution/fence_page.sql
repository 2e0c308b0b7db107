-- As fence_shard, for a page whose rows are known by something: keeps that, unless another page of the task has it.
-- Returns whether this page is the first with these rows; no row: the caller has been fenced off and must not land. Two
-- shards with equal pages: the second waits for the first's commit and then sees it. Primary keys.
WITH fenced AS (
    UPDATE collect.shard
    SET progress_at = now()
    WHERE
        task_id = %(task_id)s AND shard_no = %(shard_no)s
        AND fencing_token = %(token)s AND status = 'RUNNING'
    RETURNING task_id, shard_no, pages
),

kept AS (
    INSERT INTO collect.page_fingerprint (task_id, fingerprint, shard_no, page)
    SELECT task_id, %(fingerprint)s, shard_no, pages FROM fenced
    ON CONFLICT (task_id, fingerprint) DO NOTHING
    RETURNING page
)

SELECT fenced.pages, (SELECT count(*) FROM kept) = 1 AS first FROM fenced
