-- Adds to what an open shed action has cancelled, in the transaction that cancels. Index backlog_action_open.
UPDATE collect.backlog_action
SET
    value_after = jsonb_set(
        value_after, '{cancelled}', to_jsonb(coalesce((value_after ->> 'cancelled')::integer, 0) + %(cancelled)s::integer)
    )
WHERE
    rule = %(rule)s AND kind = 'source' AND scope = %(source)s AND action = 'shed' AND ending_at IS NULL
