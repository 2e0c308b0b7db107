-- What became of a redrive's letters. The caller holds its lock (lock_redrive). Primary key.
UPDATE collect.redrive_item AS i
SET state = a.state, answer = a.answer, at = clock_timestamp()
FROM unnest(%(ids)s::bigint[], %(states)s::text[], %(answers)s::text[]) AS a (id, state, answer)
WHERE i.redrive_id = %(redrive_id)s AND i.dead_letter_id = a.id AND i.state = 'PENDING'
