-- Actions that no rule has let go of yet. Index backlog_action_open.
SELECT id, rule, kind, scope, action, reason
FROM collect.backlog_action
WHERE ending_at IS NULL
ORDER BY id
