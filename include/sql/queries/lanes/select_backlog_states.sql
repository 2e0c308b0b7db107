-- Where the rules stand. Only the holder of the backlog's lock writes them. Small table.
SELECT s.rule, s.kind, s.scope, s.phase, s.since, s.seen_at
FROM collect.backlog_state AS s
