"""The collect task: its states, its legal moves, its progress.

Promises: every move is one conditional UPDATE and leaves a row in `collect.task_log`. Does not decide when a
task moves; the use cases (admission, lanes, execution, delivery) do.
"""
