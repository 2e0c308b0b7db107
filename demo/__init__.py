"""The demonstration: a real data set behind a real HTTP server, collected through the running stack.

`dataset` makes the data, `server` serves it, `run` submits, watches, checks and sums up.
"""
