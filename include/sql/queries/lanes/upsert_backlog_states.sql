-- Writes where rules stand. Primary key; only the holder of the backlog's lock writes them.
INSERT INTO collect.backlog_state (rule, kind, scope, phase, since, seen_at)
SELECT s.rule, s.kind, s.scope, s.phase, s.since, s.seen_at
FROM unnest(
    %(rules)s::text[],
    %(kinds)s::text[],
    %(scopes)s::text[],
    %(phases)s::text[],
    %(since)s::timestamptz[],
    %(seen_at)s::timestamptz[]
) AS s (rule, kind, scope, phase, since, seen_at)
ON CONFLICT (rule, kind, scope) DO UPDATE
SET phase = excluded.phase, since = excluded.since, seen_at = excluded.seen_at
