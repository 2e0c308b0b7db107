"""Airflow sensors: waiting, deferred where it takes long."""
