"""Who acts, for the task log: the Airflow task instance."""

from __future__ import annotations

from airflow.sdk import Context


def actor_of(context: Context) -> str:
    """`airflow:DAG/RUN/TASK`."""
    ti = context["ti"]
    return f"airflow:{ti.dag_id}/{ti.run_id}/{ti.task_id}"
