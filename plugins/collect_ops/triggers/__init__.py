"""Airflow triggers: what the triggerer watches for sensors and assets."""
