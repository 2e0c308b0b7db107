"""Which paused DAGs `make status` tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psycopg

from stack import credentials
from stack.layout import CHECKOUT, Layout
from stack.paused import paused_dags
from stack.ports import Ports
from stack.settings import Stack


def test_what_is_paused_is_asked_of_airflow(postgres_dsn: str, tmp_path: Path) -> None:
    """Of the project's own DAGs that are still there; whatever else somebody has paused is his affair."""
    folder = CHECKOUT / "dags"
    rows = [
        ("retention", folder / "retention.py", True, False),
        ("lane_express", folder / "lanes.py", True, False),
        ("landing_tables", folder / "sources.py", True, False),
        ("collect_sweep", folder / "collect_sweep.py", True, False),
        ("collect_inbox", folder / "collect_inbox.py", False, False),
        ("lane_gone", folder / "lanes.py", True, True),
        ("source_things", folder / "sources.py", True, False),
        ("collect_taxes", folder / "taxes.py", True, False),
        ("lane_of_others", tmp_path / "lanes.py", True, False),
        ("collect_submit", tmp_path / "collect_submit.py", True, False),
    ]
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE dag (dag_id text, fileloc text, is_paused boolean, is_stale boolean)"
        )
        for name, file, paused, stale in rows:
            values = (name, str(file), paused, stale)
            connection.execute("INSERT INTO dag VALUES (%s, %s, %s, %s)", values)
        info = connection.info
        secrets = credentials.generate() | {
            "POSTGRES_AIRFLOW_USER": info.user,
            "POSTGRES_AIRFLOW_PASSWORD": info.password,
            "POSTGRES_AIRFLOW_DB": info.dbname,
        }
        ports = Ports.from_base(20_000)
        ports = replace(ports, postgres=info.port)
    stack = Stack(layout=Layout(home=tmp_path), ports=ports, secrets=secrets)
    assert paused_dags(stack) == ["collect_sweep", "landing_tables", "lane_express", "retention"]
