-- Takes dedup keys over in one conditional upsert: free, expired (work that is still under way keeps its key), held by a
-- task that ended DEAD or CANCELLED (or at all, where the source says that equals are refused only while it is active), or
-- forced. Returns the tasks that got theirs; each key may come once. In key order, so that two batches cannot wait for
-- each other. `generation`: a holder that was DEAD in our snapshot may have been sent again by whoever we waited for; it
-- has then taken its key with a higher generation than the one we see. Primary key.
INSERT INTO collect.dedup AS d (key, task_id, expires_at)
SELECT w.key, w.task_id, now() + make_interval(secs => w.ttl_s)
FROM unnest(%(keys)s::bytea[], %(task_ids)s::bigint[], %(ttls_s)s::float8[]) WITH ORDINALITY
    AS w (key, task_id, ttl_s, n)
ORDER BY w.n
ON CONFLICT (key) DO UPDATE
    SET task_id = excluded.task_id, expires_at = excluded.expires_at, generation = excluded.generation
    WHERE
        (
            d.expires_at <= now()
            AND NOT EXISTS (
                SELECT FROM collect.task AS t
                WHERE t.id = d.task_id AND t.status NOT IN ('COMPLETED', 'PARTIAL', 'DEAD', 'CANCELLED')
            )
        )
        OR excluded.task_id = ANY(%(forced)s::bigint[])
        OR EXISTS (
            SELECT FROM collect.task AS t
            WHERE
                t.id = d.task_id
                AND t.generation >= d.generation
                AND (
                    t.status IN ('DEAD', 'CANCELLED')
                    OR t.status IN ('COMPLETED', 'PARTIAL') AND excluded.task_id = ANY(%(free_when_ended)s::bigint[])
                )
        )
RETURNING task_id
