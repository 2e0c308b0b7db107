"""Which processes of Airflow's import beforehand what they would import in every child."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("command", ["celery worker", "triggerer"])
def test_a_pull_under_a_running_process_changes_nothing_of_what_it_does(command: str, tmp_path: Path) -> None:
    checkout = Path(__file__).parents[3]
    include = tmp_path / "include"
    shutil.copytree(checkout / "include", include)
    script = """
import sys
from pathlib import Path
include = Path(sys.argv.pop())
import config.airflow_local_settings
before = set(sys.modules)
for folder in ("sql/queries", "lua"):
    for file in (include / folder).rglob("*.*"):
        file.write_text("of the next release")
import pkgutil, collect_ops
from collect_ops.storage import query
from collect_ops.coordination.limiter import _script
of_next = [name for name in ("lanes/claim_tasks", "execution/fence_shard") if "next release" in query(name)]
later = [
    found.name for found in pkgutil.walk_packages(collect_ops.__path__, "collect_ops.")
    if found.name not in before and found.name.split(".")[1] not in ("cli", "policies")
]
print(of_next, "next release" in _script("limiter_acquire"), later)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *command.split(), str(include)],
        cwd=checkout,
        env={
            **os.environ,
            "COLLECT_OPS_INCLUDE": str(include),
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "PYTHONPATH": str(checkout / "plugins"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["[] False []"], done.stderr
