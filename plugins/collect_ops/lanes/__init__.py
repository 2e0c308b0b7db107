"""Lanes: priority bands, their queues and capacity; claiming work from them; waking them.

Promises: a claim moves a task at most once a generation, takes no more than the lane has room for, and acks only
after its commit. Knows nothing of sources or shards.
"""
