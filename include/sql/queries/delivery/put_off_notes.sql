-- A run's notes that could not be delivered now: due again after twice as long each time. Indexes run_note_run.
UPDATE collect.run_note
SET
    tries = tries + 1,
    next_at = now() + make_interval(secs => least(%(longest_s)s, %(first_s)s * 2.0 ^ least(tries, 30)))
WHERE run_id = %(run_id)s AND delivered_at IS NULL
