-- What redrives say of letters that were taken back. Index redrive_item_letter.
UPDATE collect.redrive_item
SET state = 'TAKEN_BACK', answer = %(reason)s, at = clock_timestamp()
WHERE dead_letter_id = ANY(%(ids)s::bigint[]) AND state = 'DONE'
