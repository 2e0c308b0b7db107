"""Execution: planning shards, running shard groups, settling.

Promises: rows and a shard's progress commit together, under the shard's newest fencing token; a new attempt runs only
shards that are not DONE, from their last committed page; a task settles once an attempt. Does not fetch or land by
itself: collectors and landing do.
"""
