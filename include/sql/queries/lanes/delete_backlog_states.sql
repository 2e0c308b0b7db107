-- Forgets where rules stood: they are IDLE. Primary key; only the holder of the backlog's lock writes them.
DELETE FROM collect.backlog_state AS s
USING unnest(%(rules)s::text[], %(kinds)s::text[], %(scopes)s::text[]) AS gone (rule, kind, scope)
WHERE s.rule = gone.rule AND s.kind = gone.kind AND s.scope = gone.scope
