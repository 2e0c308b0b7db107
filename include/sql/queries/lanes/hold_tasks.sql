-- Sets tasks aside that may not run now; whoever frees the limit, or closes the circuit, publishes them again. Primary key.
UPDATE collect.task AS t
SET status = 'HELD', reason = m.reason, held_for = %(held_for)s, moved_by = %(actor)s, progress_at = now(),
    confirmed_generation = t.generation
FROM unnest(%(task_ids)s::bigint[], %(generations)s::int[], %(reasons)s::text[]) AS m (task_id, generation, reason)
WHERE t.id = m.task_id AND t.generation = m.generation AND t.status IN ('QUEUED', 'RETRYING')
