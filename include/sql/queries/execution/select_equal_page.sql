-- Which page of a task has these rows. Primary key.
SELECT shard_no, page FROM collect.page_fingerprint
WHERE task_id = %(task_id)s AND fingerprint = %(fingerprint)s
