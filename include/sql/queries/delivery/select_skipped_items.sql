-- Letters that a redrive has not sent, with the reason. Primary key.
SELECT i.dead_letter_id, d.task_id, i.answer
FROM collect.redrive_item AS i
JOIN collect.dead_letter AS d ON d.id = i.dead_letter_id
WHERE i.redrive_id = %(redrive_id)s AND i.state = 'SKIPPED'
ORDER BY i.dead_letter_id
LIMIT %(limit)s
