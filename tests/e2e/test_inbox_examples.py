"""The producers that docs/inbox.md shows, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.running_stack import RunningStack, wait_for
from tests.servers.paged import PagedServer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "inbox.md"


def example(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    return found.group(1)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_producer_is_answered(stack: RunningStack, server: PagedServer) -> None:
    said = run(sys.executable, "-c", example("python"))
    assert re.match(r'1 \{"schema": 1, .*"task_id": \d+', said), said


def test_the_javascript_producer_is_collected(
    stack: RunningStack, server: PagedServer, tmp_path: Path
) -> None:
    script = tmp_path / "produce.mjs"
    script.write_text(example("javascript"))
    before = stack.rows("SELECT coalesce(max(id), 0) AS id FROM collect.task")[0]["id"]
    assert '200 {"routed":true}' in run("node", str(script))
    task = wait_for(
        "the shop's task",
        lambda: stack.rows(
            "SELECT * FROM collect.task WHERE id > %s AND submitted_via = 'amqp' AND params ->> 'ids' = '3,4'",
            before,
        ),
        90,
    )[0]
    assert "shop" in task["submitted_by"]
    assert stack.task_ended(task["id"])["status"] == "COMPLETED"
