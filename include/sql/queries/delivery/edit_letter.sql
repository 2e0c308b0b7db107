-- Notes an edit on an open dead letter, and of a message without a task what is sent from now on. Primary key.
UPDATE collect.dead_letter
SET
    edits = edits || jsonb_build_array(%(edit)s::jsonb || jsonb_build_object('at', now())),
    edited_body = coalesce(%(body)s, edited_body),
    send_exchange = coalesce(%(exchange)s, send_exchange),
    send_routing_key = coalesce(%(routing_key)s, send_routing_key)
WHERE id = %(id)s AND state = 'OPEN'
RETURNING id
