"""Airflow cluster policies."""
