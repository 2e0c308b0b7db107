-- Lets go of actions, once each. A widened pool's has its end when Airflow confirms (confirm_pool), the others at once.
-- Primary key.
UPDATE collect.backlog_action AS a
SET
    ending_at = clock_timestamp(),
    undone_at = CASE WHEN ended.at_once THEN clock_timestamp() END,
    undo_reason = ended.reason
FROM unnest(%(ids)s::bigint[], %(reasons)s::text[], %(at_once)s::boolean[]) AS ended (id, reason, at_once)
WHERE a.id = ended.id AND a.ending_at IS NULL
RETURNING a.rule, a.scope, a.action
