"""Beside processes of release 0.1.0, during an upgrade: they run what uses nothing new, and we what they admit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from collect_ops.sources.declaration import Since
from collect_ops.sources.model import Source
from tests.factories import list_source
from tests.plugins.integration.delivery.letters import kill, letters_of
from tests.plugins.integration.execution.checks import assert_exact, landed, target
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

ROOT = Path(__file__).parents[4]
COMMIT = "c3ff294"
TIMEOUT_S = 180

Act = Callable[..., dict[int, dict[str, Any]]]


@pytest.fixture(scope="session")
def release_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release's code, from git."""
    folder = tmp_path_factory.mktemp("release")
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", COMMIT], capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.skip(f"git does not have commit {COMMIT}: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


@pytest.fixture
def server(serve: Callable[..., PagedServer], world: World) -> PagedServer:
    server = serve(rows=200)
    world.serve_from(server.base_url)
    return server


@pytest.fixture
def old_process(release_code: Path, server: PagedServer, world: World) -> Act:
    """Lets a process of the release act; returns the tasks after it."""

    def act(*acts: str, **more: Any) -> dict[int, dict[str, Any]]:
        asked = {"acts": acts, "base_url": server.base_url, "backends": asdict(world.backends), **more}
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
            "PYTHONPATH": f"{release_code / 'plugins'}:{release_code}",
            "COLLECT_OPS_INCLUDE": str(release_code / "include"),
        }
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("old_process.py"))],
            cwd=release_code, env=environment, input=json.dumps(asked), capture_output=True, text=True, check=False,
            timeout=TIMEOUT_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        return {row["id"]: row for row in json.loads(done.stdout.splitlines()[-1])}

    return act


#: Uses nothing new, and little at that: every default is the old process's to know.
LITTLE = Source.model_validate(
    {
        "name": "things",
        "connection": "things_api",
        "request": {"path": "/offset"},
        "records": "rows",
        "paging": {"type": "offset"},
        "total": {"type": "body", "path": "total"},
        "page_size": 50,
        "batch_size": 100,
        "target": target("merge"),
    }
)


def test_an_old_process_collects_what_a_new_one_admits(world: World, old_process: Act) -> None:
    world.add(LITTLE)
    task_id = world.submit().task_id
    assert old_process("collect")[task_id]["status"] == "COMPLETED"
    assert_exact(world, 200)


def test_an_old_process_redrives_what_a_new_one_admitted(world: World, old_process: Act) -> None:
    world.add(LITTLE)
    task_id = world.submit().task_id
    kill(world, [task_id], "answered 404")
    (letter,) = letters_of(world, [task_id])
    assert old_process("redrive", "sweep", "collect", letters=[letter])[task_id]["status"] == "COMPLETED"
    assert_exact(world, 200)


def test_an_old_process_settles_what_a_new_one_merged(world: World, old_process: Act) -> None:
    world.add(list_source(merge_window_seconds=600))
    ids = [world.submit(params={"ids": text}).task_id for text in ("1,2", "2,3")]
    tasks = old_process("sweep", "collect")
    assert [tasks[each]["status"] for each in ids] == ["COMPLETED", "COMPLETED"]
    assert landed(world) == [1, 2, 3]


def test_a_new_process_collects_what_an_old_one_admits(world: World, old_process: Act) -> None:
    declared = source().model_dump(mode="json", exclude_unset=True)
    (task,) = old_process("submit", sources=[declared]).values()
    assert task["status"] == "QUEUED"
    world.claim_and_run()
    assert world.task(task["id"])["status"] == "COMPLETED"
    assert_exact(world, 200)
    (stored,) = world.rows("SELECT format, declared FROM collect.source_version")
    assert stored == {"format": 0, "declared": None}


def test_a_field_that_is_new_and_not_set_is_kept_from_an_old_process(
    world: World, old_process: Act, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if `sheddable` was new: a declaration that does not set it stays as the old process knows it."""
    field = Source.model_fields["sheddable"]
    monkeypatch.setattr(field, "metadata", [*field.metadata, Since(format=9)])
    world.add(LITTLE.model_copy(update={"description": "without it"}))
    task_id = world.submit().task_id
    (stored,) = world.rows(
        "SELECT format, definition ->> 'sheddable' AS sheddable FROM collect.source_version"
    )
    assert stored == {"format": 1, "sheddable": None}
    assert old_process("collect")[task_id]["status"] == "COMPLETED"
