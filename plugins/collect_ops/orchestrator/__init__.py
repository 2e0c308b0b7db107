"""Airflow as the domain sees it: what is reported to it, and its REST API.

Promises: every call has a time limit and ends in `AirflowUnavailable` when Airflow did not take it. Does not decide
what is worth reporting, and imports no Airflow code.
"""
