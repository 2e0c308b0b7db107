-- Journals actions; one that is open already stays as it is, so each is written once. Index backlog_action_open.
INSERT INTO collect.backlog_action (
    rule, kind, scope, action, value_before, value_after, reason, actor, applied_at
)
SELECT
    a.rule,
    a.kind,
    a.scope,
    a.action,
    a.value_before,
    a.value_after,
    a.reason,
    %(actor)s,
    CASE WHEN a.at_once THEN clock_timestamp() END
FROM unnest(
    %(rules)s::text[],
    %(kinds)s::text[],
    %(scopes)s::text[],
    %(actions)s::text[],
    %(before)s::jsonb[],
    %(after)s::jsonb[],
    %(reasons)s::text[],
    %(at_once)s::boolean[]
) AS a (rule, kind, scope, action, value_before, value_after, reason, at_once)
ON CONFLICT (rule, kind, scope, action) WHERE ending_at IS NULL DO NOTHING
RETURNING rule, scope, action
