-- Keeps why a lane's pool could not be set; it is tried again with the next evaluation. Index backlog_action_unfinished.
UPDATE collect.backlog_action
SET problem = %(problem)s
WHERE
    kind = 'lane' AND scope = %(lane)s AND action = 'widen_pool' AND undone_at IS NULL
    AND (applied_at IS NULL OR ending_at IS NOT NULL)
