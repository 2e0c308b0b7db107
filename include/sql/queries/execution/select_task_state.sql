-- Why a move moved nothing. Primary key.
SELECT status, attempt, run_id FROM collect.task WHERE id = %(task_id)s
