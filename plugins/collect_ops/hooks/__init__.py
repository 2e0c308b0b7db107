"""Airflow hooks: from Airflow's connections to what the domain takes."""
