"""The one plugin file Airflow loads: light, since every task's process runs it."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class CollectOpsPlugin(AirflowPlugin):
    """Makes collect-ops known to Airflow; DAGs import operators, sensors and triggers themselves."""

    name = "collect_ops"
