"""`watch` and `submit --wait` on a terminal: one line, drawn anew, and the last one stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from collect_ops.cli import task as commands
from collect_ops.coordination.wakeups import Wakeups
from collect_ops.sources.load import load_sources
from collect_ops.storage import connect
from collect_ops.tasks.progress import read_progress
from tests.plugins.integration.cli.terminal import Screen, Terminal, on_terminal
from tests.plugins.integration.world import World
from tests.servers.paged import PagedServer

SOURCE = "example_offset"
PRIORITY = 5
PLUGINS = Path(commands.__file__).resolve().parents[2]


@pytest.fixture
def environment(world: World, serve: Callable[..., PagedServer]) -> Mapping[str, str]:
    """Of a person's shell on this test's services. Their lane was just woken: no Airflow runs here."""
    world.add(load_sources().sources[SOURCE])
    world.serve_from(serve(rows=2000).base_url)
    Wakeups(world.backends.redis_url).begin(world.rules.lane_of(PRIORITY))
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COLLECT_", "PYTEST")) and name not in ("COLUMNS", "LINES", "NO_COLOR")
    }
    return {
        **inherited,
        "TERM": "xterm-256color",
        "PYTHONPATH": str(PLUGINS),
        "COLLECT_EXAMPLES": "1",
        "COLLECT_POSTGRES_DSN": world.backends.postgres_dsn,
        "COLLECT_REDIS_URL": world.backends.redis_url,
        "COLLECT_AMQP_URL": world.backends.amqp_url,
        "COLLECT_AIRFLOW_URL": "http://127.0.0.1:9",
        "COLLECT_AIRFLOW_USER": "nobody",
        "COLLECT_AIRFLOW_PASSWORD": "nothing",
    }


def run_task(world: World, terminal: Terminal) -> None:
    """Let the task that waits run to its end, each step once the one before it is seen."""
    lane = world.rules.lane_of(PRIORITY)
    terminal.await_text(": QUEUED")
    (run,) = world.claim(lane).runs
    terminal.await_text(": CLAIMED")
    world.plan(run.run_id)
    terminal.await_text(": DISPATCHED")
    world.run_planned(run.run_id)


def last_line(world: World, task_id: int) -> str:
    """What `status` says of the task now."""
    with connect(world.backends.postgres_dsn) as connection:
        progress = read_progress(connection, task_id)
    assert progress is not None
    return commands.line(progress)


def assert_one_line_was_redrawn(screen: Screen, row: int, columns: int) -> None:
    """All that was drawn stood in one row of the screen, and the states were seen in their order."""
    drawn = [text for _, text in screen.erased]
    assert {row for row, _ in screen.erased} == {row}
    assert all(len(text) <= columns for text in drawn)
    found = [text.split(": ", 1)[1].split(" ", 1)[0] for text in drawn]
    seen = [status for place, status in enumerate(found) if status not in found[:place]]
    assert [status for status in seen if status != "RUNNING"] == [
        "QUEUED",
        "CLAIMED",
        "DISPATCHED",
        "COMPLETED",
    ]
    assert screen.cursor_shown


@pytest.mark.parametrize("columns", [200, 60])
def test_watch_redraws_one_line_and_leaves_the_last(
    world: World, environment: Mapping[str, str], tmp_path: Path, columns: int
) -> None:
    task_id = world.submit(SOURCE).task_id
    arguments = ("watch", str(task_id), "--interval", "0.1")
    errors = tmp_path / "errors"
    with on_terminal(*arguments, environment=environment, columns=columns, errors=errors) as terminal:
        run_task(world, terminal)
        screen = terminal.end()
    assert (terminal.process.returncode, errors.read_text()) == (0, "")
    assert_one_line_was_redrawn(screen, 0, columns)
    assert "".join(screen.rows) == last_line(world, task_id)
    assert ": COMPLETED · 2,000 of 2,000 rows landed · shards 4/4" in "".join(screen.rows)
    if columns == 60:
        assert all(
            len(text) == columns and text.endswith("…") for _, text in screen.erased if "COMPLETED" in text
        )


def test_submit_and_wait_redraws_the_line_below_its_answer(
    world: World, environment: Mapping[str, str], tmp_path: Path
) -> None:
    arguments = ("submit", SOURCE, "-p", "since=2024-01-01T00:00:00Z", "--wait")
    with on_terminal(
        *arguments, environment=environment, columns=200, errors=tmp_path / "errors"
    ) as terminal:
        run_task(world, terminal)
        screen = terminal.end()
    assert terminal.process.returncode == 0, (tmp_path / "errors").read_text()
    ((task,),) = [tuple(row.values()) for row in world.rows("SELECT id FROM collect.task")]
    assert_one_line_was_redrawn(screen, 1, 200)
    answer, last, *rest = screen.rows
    assert answer.startswith(f"task {task} ")
    assert (last, rest) == (last_line(world, task), [""])


def test_an_interrupted_watch_leaves_the_line_and_the_cursor(
    world: World, environment: Mapping[str, str], tmp_path: Path
) -> None:
    task_id = world.submit(SOURCE).task_id
    arguments = ("watch", str(task_id), "--interval", "0.1")
    with on_terminal(
        *arguments, environment=environment, columns=200, errors=tmp_path / "errors"
    ) as terminal:
        terminal.await_text(": QUEUED")
        terminal.process.send_signal(signal.SIGINT)
        screen = terminal.end()
    assert terminal.process.returncode != 0
    assert screen.cursor_shown
    assert screen.rows[0].startswith(f"task {task_id} {SOURCE}: QUEUED")
