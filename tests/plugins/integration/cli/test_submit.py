"""`collect-ops submit`, one and many: what it prints, what it does, how it ends."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plugins.integration.world import World

Run = Callable[..., tuple[int, str, str]]
SINCE = "since=2024-01-01T00:00:00Z"
SOURCE = "example_offset"


@pytest.fixture(autouse=True)
def without_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes are not woken: no Airflow runs here."""
    monkeypatch.setattr("collect_ops.lanes.rest_runs.RestRuns.from_environment", lambda: None)


@pytest.fixture
def moments(tmp_path: Path) -> Path:
    path = tmp_path / "moments.csv"
    path.write_text("since\n" + "".join(f"2024-01-01T00:{n // 60:02}:{n % 60:02}Z\n" for n in range(300)))
    return path


def test_one(world: World, collect_ops: Run) -> None:
    code, out, _ = collect_ops("submit", SOURCE, "-p", SINCE, "--dry-run", "--json")
    assert (code, json.loads(out)["decision"], json.loads(out)["priority"]) == (0, "admitted", 5)
    assert world.rows("SELECT 1 FROM collect.task") == []
    deadline = ("--deadline", "2026-12-01T08:00:00+01:00")
    code, out, _ = collect_ops("submit", SOURCE, "-p", SINCE, "--priority", 9, *deadline, "--json")
    task_id = json.loads(out)["task_id"]
    row = world.task(task_id)
    assert (code, row["priority"], row["deadline"].isoformat()) == (0, 9, "2026-12-01T07:00:00+00:00")
    code, out, _ = collect_ops("submit", SOURCE, "-p", SINCE)
    assert (code, out.startswith(f"duplicate of task {task_id}, now QUEUED;"), "--force" in out) == (
        3,
        True,
        True,
    )
    code, out, _ = collect_ops("submit", SOURCE, "-p", SINCE, "--dry-run")
    assert (code, f"duplicate of task {task_id}, now QUEUED" in out, "--force" in out) == (3, True, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-p", "since"), "--param: must be NAME=VALUE"),
        (("--priority", "11"), "0 to 10"),
        (("--deadline", "tomorrow"), "--deadline: must be ISO 8601 with an offset"),
        (("--deadline", "2026-12-01T08:00:00"), "--deadline: must be ISO 8601 with an offset"),
        (("--again",), "--again: needs --params-file"),
        (("--errors", "x"), "--errors: needs --params-file"),
        (("--params-file", "no-such.csv"), "--params-file: cannot be read"),
        (("--params-file", "no-such.txt"), "tells no format"),
        (("--params-file", "-"), "tells no format"),
        (("--params-file", "x.csv", "--wait"), "--wait: does not go with this"),
        (("--params-file", "x.csv", "--format", "xml"), "--format: is no format"),
    ],
)
def test_bad_input(world: World, collect_ops: Run, arguments: tuple[str, ...], told: str) -> None:
    code, out, err = collect_ops("submit", SOURCE, *arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert world.rows("SELECT 1 FROM collect.task") == []


def test_many(world: World, collect_ops: Run, moments: Path, tmp_path: Path) -> None:
    code, out, _ = collect_ops("submit", SOURCE, "--params-file", moments, "--dry-run")
    assert (code, out) == (0, "300 lines: would be 300 admitted\n")
    answers = tmp_path / "answers.ndjson"
    code, out, _ = collect_ops("submit", SOURCE, "--params-file", moments, "--answers", answers)
    assert (code, out) == (0, "300 lines: 300 admitted\n")
    told = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [each["line"] for each in told] == list(range(2, 302))
    assert {each["task_id"] for each in told} == {
        row["id"] for row in world.rows("SELECT id FROM collect.task")
    }
    code, out, err = collect_ops("submit", SOURCE, "--params-file", moments)
    assert (code, out) == (0, "300 lines: 300 known from before\n")
    assert "--again submits it once more" in err
    code, out, _ = collect_ops("submit", SOURCE, "--params-file", moments, "--again", "--json")
    told = json.loads(out)
    assert (code, told["duplicate"], told["admitted"]) == (0, 300, 0)
    assert not list(tmp_path.glob("*.errors.ndjson"))


def test_answers_of_a_file_are_looked_up_by_their_request_ids(
    world: World, collect_ops: Run, moments: Path, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.ndjson"
    arguments = ("submit", SOURCE, "--params-file", moments, "--request-id", "nightly", "--answers", answers)
    assert collect_ops(*arguments)[0] == 0
    first, *_ = (json.loads(line) for line in answers.read_text().splitlines())
    assert first["request_id"].startswith("nightly:")
    code, out, _ = collect_ops("status", first["request_id"], "--json")
    assert (code, json.loads(out)["task_id"]) == (0, first["task_id"])
    code, out, _ = collect_ops("status", str(first["task_id"]), "--json")
    assert (code, json.loads(out)["task_id"]) == (0, first["task_id"])
    code, _, err = collect_ops("status", "nightly:nobody:1")
    assert code == 2
    assert "'nightly:nobody:1'" in err


def test_bad_lines(world: World, collect_ops: Run, moments: Path) -> None:
    with moments.open("a") as file:
        file.write("yesterday\na,b\n")
    code, out, err = collect_ops("submit", SOURCE, "--params-file", moments)
    errors = Path(f"{moments}.errors.ndjson")
    assert (code, out) == (2, "")
    assert "2 of 302 lines are bad, nothing was admitted" in err
    assert str(errors) in err
    told = [json.loads(line) for line in errors.read_text().splitlines()]
    assert [(each["line"], each["raw"]) for each in told] == [(302, "yesterday"), (303, "a,b")]
    assert told[0]["faults"][0]["field"].endswith("since")
    assert world.rows("SELECT 1 FROM collect.task") == []
    code, out, _ = collect_ops("submit", SOURCE, "--params-file", moments, "--json")
    assert (code, json.loads(out)["bad"], json.loads(out)["admitted"]) == (2, 2, 0)
    code, out, err = collect_ops("submit", SOURCE, "--params-file", moments, "--skip-bad")
    assert (code, out) == (0, "300 lines: 300 admitted\n")
    assert "2 bad lines skipped" in err


def test_stdin(world: World, collect_ops: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b'{"since": "2024-01-01T00:00:00Z"}\n{"since": "2024-01-02T00:00:00Z"}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    code, out, _ = collect_ops("submit", SOURCE, "--params-file", "-", "--format", "ndjson")
    assert (code, out) == (0, "2 lines: 2 admitted\n")


def test_watch_as_json(world: World, collect_ops: Run) -> None:
    _, out, _ = collect_ops("submit", SOURCE, "-p", SINCE, "--json")
    task_id = json.loads(out)["task_id"]
    collect_ops("cancel", task_id)
    code, out, _ = collect_ops("watch", task_id, "--json")
    (line,) = out.splitlines()
    assert (code, json.loads(line)["status"]) == (1, "CANCELLED")


def test_a_pipe_can_be_read(world: World, collect_ops: Run, tmp_path: Path) -> None:
    pipe = tmp_path / "moments.csv"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("since\n2024-01-01T00:00:00Z\n"))
    writer.start()
    assert collect_ops("submit", SOURCE, "--params-file", pipe)[:2] == (0, "1 lines: 1 admitted\n")
    writer.join()


def test_what_cannot_be_written_is_said_before_anything_is_admitted(
    world: World, collect_ops: Run, moments: Path, tmp_path: Path
) -> None:
    for option, path, told in (
        ("--answers", tmp_path / "nowhere" / "a.ndjson", "cannot be written"),
        ("--answers", moments, "is the file that is read"),
        ("--errors", moments, "is the file that is read"),
    ):
        code, _, err = collect_ops("submit", SOURCE, "--params-file", moments, option, path)
        assert (code, told in err) == (2, True), err
    assert moments.read_text().startswith("since\n2024")
    with moments.open("a") as file:
        file.write("bad\n")
    errors = tmp_path / "nowhere" / "e.ndjson"
    code, _, err = collect_ops("submit", SOURCE, "--params-file", moments, "--skip-bad", "--errors", errors)
    assert (code, "cannot be written" in err) == (2, True)
    assert world.rows("SELECT 1 FROM collect.task") == []


def test_again_can_be_gone_on_with(world: World, collect_ops: Run, moments: Path) -> None:
    file = ("--params-file", moments, "--force")
    code, out, err = collect_ops("submit", SOURCE, *file, "--again")
    assert (code, out) == (0, "300 lines: 300 admitted\n")
    name = err.split("--request-id ")[1].split()[0]
    assert (
        collect_ops("submit", SOURCE, *file, "--request-id", name)[1] == "300 lines: 300 known from before\n"
    )


def test_parameters_that_are_no_text_are_a_fault(world: World, collect_ops: Run, moments: Path) -> None:
    code, _, err = collect_ops("submit", SOURCE, "--params-file", moments, "--path", "/off\udcff")
    assert (code, "300 of 300 lines are bad" in err) == (2, True), err
