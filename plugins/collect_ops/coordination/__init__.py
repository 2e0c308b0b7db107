"""Redis: leases, wake-up marks, dedup hints. The only package that knows the Redis driver.

Promises: nothing here is the truth. A key that is missing, or a Redis that is away, makes things slower, never wrong:
leases are backed by fencing tokens in PostgreSQL, hints are checked against it, wake-ups are caught by the sweep.
"""
