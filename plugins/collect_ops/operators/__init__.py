"""Airflow operators: thin words over the use cases."""
