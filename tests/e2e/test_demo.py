"""`python -m demo` on the running stack: exact rows, and the same again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.settings import DemoSettings
from tests.documents.blocks import blocks_in
from tests.documents.console import compare

CHECKOUT = Path(__file__).resolve().parents[2]
DEMO_TIMEOUT_S = 300

pytestmark = [pytest.mark.stack, pytest.mark.timeout(2 * DEMO_TIMEOUT_S)]


@pytest.fixture(scope="module")
def settings() -> DemoSettings:
    return DemoSettings.load()


def run_demo(settings: DemoSettings) -> tuple[str, dict[str, Any]]:
    """Run it; returns what it printed and the summary it wrote."""
    paths = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "plugins")])
    environment = {**os.environ, "PYTHONPATH": paths, "STACK_HOME": str(settings.home), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEMO_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((settings.home / "summary.json").read_text())


def check_exact(summary: dict[str, Any]) -> None:
    assert summary["faults"] == []
    assert summary["ok"] is True
    assert summary["status"] == "COMPLETED"
    assert summary["rows"] == summary["expected_rows"] == 336_776
    assert summary["checksum_ok"] is True
    assert summary["bad_rows"] == 0
    assert summary["shards_done"] == summary["shards"] > 1


def test_the_demo_lands_every_row_and_a_second_one_is_refused_then_forced(settings: DemoSettings) -> None:
    _, first = run_demo(settings)
    check_exact(first)
    printed, second = run_demo(settings)
    check_exact(second)
    assert second["duplicate_of"] is not None
    assert f"duplicate of task {second['duplicate_of']}, now COMPLETED" in printed
    assert second["task_id"] > first["task_id"]
    compare(("…", *summary_in_the_readme()), as_the_readme_has_it(printed, settings))


def summary_in_the_readme() -> list[str]:
    """The lines of the first demo's summary, as README shows them."""
    (block,) = [each for each in blocks_in(CHECKOUT / "README.md", CHECKOUT) if each.language == "text"]
    return block.body.splitlines()


def as_the_readme_has_it(printed: str, settings: DemoSettings) -> str:
    """The stack's folder by its usual name, and no word of an earlier demo."""
    printed = printed.replace(str(settings.home), ".stack")
    return "\n".join(line for line in printed.splitlines() if not line.startswith("│ duplicate"))
