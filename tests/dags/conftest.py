"""The DAG files, parsed once, as Airflow parses them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG

DAGS = Path(__file__).resolve().parents[2] / "dags"


@pytest.fixture(scope="session")
def dags() -> Mapping[str, DAG]:
    """Every DAG of the project."""
    bag = DagBag(dag_folder=DAGS, safe_mode=True)
    assert bag.import_errors == {}
    return bag.dags
