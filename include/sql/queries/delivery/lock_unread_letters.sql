-- Dead letters whose fingerprint nobody has worked out, with the class of what their task ended with. Locked, so that two
-- passes do not both work on one; what another has in hand is skipped. Index dead_letter_unread.
SELECT d.id, d.error_message, t.source, t.error ->> 'class' AS error_class
FROM collect.dead_letter AS d
LEFT JOIN collect.task AS t ON t.id = d.task_id
WHERE d.fingerprint IS NULL
ORDER BY d.id
LIMIT %(limit)s
FOR NO KEY UPDATE OF d SKIP LOCKED
