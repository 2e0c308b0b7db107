-- Keeps a page's bad rows, one statement for all. Append only; safe beside anything.
INSERT INTO collect.bad_row (task_id, shard_no, page, ordinal, reason, row_text)
SELECT %(task_id)s, %(shard_no)s, %(page)s, b.ordinal, b.reason, b.row_text
FROM unnest(%(ordinals)s::integer[], %(reasons)s::text[], %(row_texts)s::text[]) AS b (ordinal, reason, row_text)
