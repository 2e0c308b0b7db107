"""The machines that run workers: what they say of themselves, who is alive, who can take work.

Promises: nothing here compares two machines' clocks; a node is LOST only by its own liveness key, and not while Redis
has lost keys. Does not know shards, nor Airflow.
"""
