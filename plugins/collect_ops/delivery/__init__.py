"""Delivery: what brings work on when something on the way was lost: outbox, dead letters, held tasks, repair.

Promises: every pass is safe to run twice and at the same time, decides by database time and the Airflow run's state,
and never by a missing Redis key. Does not run work itself.
"""
