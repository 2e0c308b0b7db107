"""`collect-ops` on the running stack: what people and scripts type."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from collect_ops.kernel.paths import include_dir
from tests.e2e.running_stack import RunningStack, wait_for
from tests.servers.paged import PagedServer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]


def collect_ops(stack: RunningStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return stack.command("collect_ops.cli", *arguments)


def test_a_task_is_submitted_followed_and_looked_at(stack: RunningStack, server: PagedServer) -> None:
    request_id = f"e2e:{uuid.uuid4()}"
    submitted = collect_ops(
        stack, "submit", "example_offset", "--force", "--request-id", request_id, "--json"
    )
    assert submitted.returncode == 0, submitted.stderr
    task_id = str(json.loads(submitted.stdout)["task_id"])
    watched = collect_ops(stack, "watch", task_id)
    assert watched.returncode == 0, watched.stdout + watched.stderr

    status = collect_ops(stack, "status", task_id, "--json")
    found = json.loads(status.stdout)
    assert (found["status"], found["rows_landed"], found["shards_done"]) == ("COMPLETED", 2000, 4)
    moves = [line["to_status"] for line in found["log"]]
    assert moves == ["QUEUED", "CLAIMED", "DISPATCHED", "RUNNING", "COMPLETED"]

    trace = json.loads(collect_ops(stack, "trace", task_id, "--json").stdout)
    assert {row["stage"] for row in trace} == {
        "admit", "publish", "claim", "plan", "fetch", "land", "settle",
    }  # fmt: skip

    again = collect_ops(stack, "submit", "example_offset", "--force", "--request-id", request_id, "--json")
    assert json.loads(again.stdout)["task_id"] == int(task_id), "the same request id, the same answer"


def test_a_duplicate_has_an_exit_status_of_its_own(stack: RunningStack, server: PagedServer) -> None:
    since = f"since=2024-03-01T00:00:00.{uuid.uuid4().int % 10**6:06d}Z"
    first = collect_ops(stack, "submit", "example_offset", "-p", since, "--wait")
    assert first.returncode == 0, first.stdout + first.stderr
    second = collect_ops(stack, "submit", "example_offset", "-p", since)
    assert second.returncode == 3
    assert "duplicate of task" in second.stdout


def test_bad_input_is_named_and_nothing_is_submitted(stack: RunningStack) -> None:
    (before,) = stack.rows("SELECT count(*) AS n FROM collect.task")
    for arguments, words in (
        (["submit", "exampel_offset"], "did you mean 'example_offset'"),
        (["submit", "example_offset", "--priority", "11"], "priority: must be a whole number from 0 to 10"),
        (["submit", "example_offset", "-p", "sinse=x"], "did you mean 'since'"),
        (["status", "999999999"], "task 999999999 does not exist"),
    ):
        done = collect_ops(stack, *arguments)
        assert done.returncode == 2, done.stdout + done.stderr
        assert words in " ".join((done.stdout + done.stderr).split())
    assert stack.rows("SELECT count(*) AS n FROM collect.task") == [before]


def test_the_sweep_runs_by_hand(stack: RunningStack) -> None:
    done = collect_ops(stack, "sweep")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_becomes_tasks_while_their_queue_is_made_anew(
    stack: RunningStack, server: PagedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bulk lane gets another TTL and its old one back, with tasks waiting in it and Airflow claiming them."""
    lines, answers = tmp_path / "moments.ndjson", tmp_path / "answers.ndjson"
    run = uuid.uuid4().int % 10**6
    lines.write_text(
        "".join(f'{{"since": "2024-04-01T00:{n:02}:00.{run:06d}Z"}}\n' for n in range(8)), encoding="utf-8"
    )
    file = ("--params-file", str(lines), "--priority", "2", "--answers", str(answers))
    submitted = collect_ops(stack, "submit", "example_offset", *file)
    assert (submitted.returncode, submitted.stdout) == (0, "8 lines: 8 admitted\n"), submitted.stderr
    tasks = [json.loads(line)["task_id"] for line in answers.read_text(encoding="utf-8").splitlines()]

    include = tmp_path / "include"
    shutil.copytree(include_dir(), include)
    rules = include / "rules/lanes.yaml"
    head, bulk, tail = rules.read_text(encoding="utf-8").partition("  bulk:")
    rules.write_text(
        head + bulk + tail.replace("message_ttl_s: 7200", "message_ttl_s: 3600"), encoding="utf-8"
    )
    with monkeypatch.context() as changed:
        changed.setenv("COLLECT_OPS_INCLUDE", str(include))
        assert collect_ops(stack, "topology", "--check").returncode == 1
        migrated = collect_ops(stack, "topology", "--migrate")
        assert migrated.returncode == 0, migrated.stdout + migrated.stderr
        assert migrated.stdout.endswith("made anew: collect.lane.bulk\n")
    back = collect_ops(stack, "topology", "--migrate", "--json")
    assert back.returncode == 0, back.stdout + back.stderr
    assert json.loads(back.stdout)["made_anew"] == ["collect.lane.bulk"]
    assert collect_ops(stack, "topology", "--check").returncode == 0

    def ended() -> list[str] | None:
        found = stack.rows("SELECT status, attempt, finished_at FROM collect.task WHERE id = ANY(%s)", tasks)
        over = [f"{row['status']} {row['attempt']}" for row in found if row["finished_at"] is not None]
        return over if len(over) == len(tasks) else None

    assert set(wait_for("the end of a file's tasks", ended, 150)) == {"COMPLETED 1"}
