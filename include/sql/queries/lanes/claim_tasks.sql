-- Claims tasks: raises their attempt, names their run: `flights-4-attempt-1`, after the source, which is what people look
-- for (a name of 0.1.0 was `task-4-attempt-1`); the task's id makes it the only one of its kind. The state is asked again, so that a second claim of the same
-- message moves nothing. Primary key. Returns what moved.
UPDATE collect.task AS t
SET
    status = 'CLAIMED', reason = NULL, moved_by = %(actor)s,
    attempt = t.attempt + 1, due_at = NULL,
    -- Its message is in hand, so the broker had it, whatever became of the confirm.
    confirmed_generation = t.generation,
    dag_id = %(dag_id)s,
    run_id = coalesce(m.run_id, t.source || '-' || t.id || '-attempt-' || (t.attempt + 1)),
    groups_reserved = m.reserved,
    nodes = string_to_array(m.nodes, ','),
    claimed_at = now(), progress_at = now()
FROM unnest(%(task_ids)s::bigint[], %(generations)s::int[], %(run_ids)s::text[], %(reserved)s::int[],
    %(nodes)s::text[]) AS m (task_id, generation, run_id, reserved, nodes)
WHERE t.id = m.task_id AND t.generation = m.generation AND t.status IN ('QUEUED', 'RETRYING')
RETURNING t.id, t.attempt, t.priority, t.source, t.run_id, t.nodes, extract(EPOCH FROM now() - t.queued_at)::float8 AS waited_s
