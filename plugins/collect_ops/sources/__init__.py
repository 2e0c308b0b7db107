"""Source declarations: what there is to collect.

Promises: a loaded `Source` is valid as a whole; all faults of a file are reported at once. Knows nothing of
how a source is fetched or landed.
"""
