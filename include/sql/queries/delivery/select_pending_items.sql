-- What a redrive has to do next. The caller holds its lock (lock_redrive). Index redrive_item_pending.
SELECT dead_letter_id FROM collect.redrive_item
WHERE redrive_id = %(redrive_id)s AND state = 'PENDING'
ORDER BY dead_letter_id
LIMIT %(limit)s
