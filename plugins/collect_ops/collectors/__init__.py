"""Collectors: how the pages of a shard are fetched from a source.

Promises: every page comes with the position to resume from after it; what is transient is tried again inside
the request; every failure is one error that says what is wrong and whether a later attempt can help; no
secret leaves in an error, a description or a position. Does not land rows, count retries of the task, or
know Airflow.
"""
