"""Which processes of Airflow's import beforehand what they would import in every child."""

from __future__ import annotations

import pytest

from config.airflow_local_settings import forks


@pytest.mark.parametrize(
    ("arguments", "executor", "expected"),
    [
        (("airflow", "dag-processor"), "CeleryExecutor", True),
        (("airflow", "celery", "worker"), "CeleryExecutor", True),
        (("airflow", "scheduler"), "LocalExecutor", True),
        (("airflow", "scheduler"), "CeleryExecutor", False),
        (("airflow", "triggerer"), "CeleryExecutor", False),
        (("airflow", "api-server"), "CeleryExecutor", False),
    ],
)
def test_who_preloads(arguments: tuple[str, ...], executor: str, expected: bool) -> None:
    assert forks(arguments, executor) is expected
