-- The journal of the backlog's rules, newest first. Primary key.
SELECT
    id, rule, kind, scope, action, value_before, value_after, reason, actor, asked_at, applied_at, problem, undone_at,
    undo_reason
FROM collect.backlog_action
ORDER BY id DESC
LIMIT %(rows)s
