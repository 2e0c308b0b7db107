"""Files of params submitted: checked before anything is admitted, gone on with after a cut, admitted once."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collect_ops.admission import bulk
from collect_ops.admission.bulk import (
    BadLine,
    BulkAdmission,
    BulkProgress,
    BulkRefused,
    BulkStopped,
    FileChanged,
    Job,
)
from collect_ops.admission.model import Admission
from collect_ops.admission.params_file import Format
from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.load import UnknownSource
from collect_ops.storage import Connection
from tests.plugins.integration.world import World, source

JOB = Job(source="things", format=Format.CSV, submitted_by="test", submitted_via="cli")


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source())


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BLOCK", 100)
    monkeypatch.setattr(bulk, "_PAUSE_S", 0.1)


def days(path: Path, count: int, *, first: int = 0) -> Path:
    path.write_text("day\n" + "".join(f"{number}\n" for number in range(first, first + count)))
    return path


def submit(
    world: World, path: Path, job: Job = JOB, *, skip_bad: bool = False, **options: Any
) -> Counter[str]:
    with path.open("rb") as file, world.service() as service:
        return BulkAdmission(service, **options).submit(file, job, skip_bad=skip_bad)[1]


def tasks(world: World) -> int:
    return int(world.rows("SELECT count(*) AS n FROM collect.task")[0]["n"])


def test_each_line_becomes_a_task_once(world: World, tmp_path: Path) -> None:
    path = days(tmp_path / "days.csv", 250)
    answers: dict[int, Admission] = {}
    told: list[BulkProgress] = []
    job = replace(JOB, priority=2)
    counts = submit(world, path, job, tell=told.append, on_answer=lambda n, a: answers.update({n: a}))
    assert counts == {"admitted": 250}
    assert sorted(answers) == list(range(2, 252))
    rows = world.rows("SELECT id, params, priority, confirmed_generation AS c FROM collect.task ORDER BY id")
    assert [(row["params"]["day"], row["priority"], row["c"]) for row in rows] == [
        (str(number), 2, 1) for number in range(250)
    ]
    assert {row["id"] for row in rows} == {answer.task_id for answer in answers.values()}
    assert [(each.phase, each.lines) for each in told] == [
        ("check", 250), ("admit", 100), ("admit", 200), ("admit", 250),
    ]  # fmt: skip
    assert told[-1].share == 1.0
    assert submit(world, path, job) == {"known": 250}, "the same again: answered as before"
    assert submit(world, path, replace(job, name="again")) == {"duplicate": 250}
    assert submit(world, path, replace(job, name="again", force=True)) == {"admitted": 250}
    assert tasks(world) == 500


def test_one_bad_line_and_nothing_is_admitted(world: World, tmp_path: Path) -> None:
    path = tmp_path / "days.ndjson"
    good = "".join(f'{{"day": "{number}"}}\n' for number in range(150))
    path.write_text(good + '{"dya": "1"}\nnot json\n{"day": {"deep": 1}}\n')
    job = replace(JOB, format=Format.NDJSON)
    bad: list[BadLine] = []
    with pytest.raises(BulkRefused, match=r"3 of 153 lines are bad, nothing was admitted") as refused:
        submit(world, path, job, on_bad=bad.append)
    assert "line 151: " in str(refused.value)
    assert "did you mean 'day'" in str(refused.value)
    assert [each.line for each in bad] == [151, 152, 153]
    assert tasks(world) == 0
    assert submit(world, path, job, skip_bad=True) == {"admitted": 150}


@pytest.mark.parametrize(
    ("job", "error", "text"),
    [
        (replace(JOB, source="thinsg"), UnknownSource, "things"),
        (replace(JOB, priority=11), ValidationFailed, "0 to 10"),
    ],
)
def test_what_is_wrong_with_all_lines_is_said_once(
    world: World, tmp_path: Path, job: Job, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        submit(world, days(tmp_path / "days.csv", 3), job)
    assert not isinstance(caught.value, BulkRefused)
    assert tasks(world) == 0


def test_one_that_was_cut_off_is_gone_on_with(world: World, tmp_path: Path) -> None:
    path = days(tmp_path / "days.csv", 450)

    def cut_off(progress: BulkProgress) -> None:
        if progress.phase == "admit" and progress.lines == 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit(world, path, tell=cut_off)
    assert tasks(world) == 200
    assert submit(world, path) == {"known": 200, "admitted": 250}
    assert tasks(world) == 450


def test_a_file_that_changes_meanwhile_is_not_mixed(world: World, tmp_path: Path) -> None:
    path = days(tmp_path / "days.csv", 250)

    def change(progress: BulkProgress) -> None:
        if progress.phase == "admit" and progress.lines == 100:
            days(path, 250, first=1000)
            os.utime(path, (1, 1))

    with pytest.raises(FileChanged, match="after 100 lines"):
        submit(world, path, tell=change)
    assert tasks(world) == 100


def test_a_database_that_is_away_for_a_moment_costs_nothing(
    world: World, tmp_path: Path, db: Connection
) -> None:
    path = days(tmp_path / "days.csv", 2000)
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.15):
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'collect-ops admission' AND datname = current_database()"
            )

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        counts = submit(world, path, patience_s=60)
    finally:
        over.set()
        killer.join()
    assert counts["admitted"] + counts["known"] == 2000
    assert tasks(world) == 2000


def test_one_block_is_admitted_as_a_whole_or_not_at_all(
    world: World, tmp_path: Path, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any moment of its transaction."""
    monkeypatch.setattr(bulk, "BLOCK", 10_000)
    path = days(tmp_path / "days.csv", 1500)
    for after_s in (0.05, 0.1, 0.2, 0.3):
        timer = threading.Timer(
            after_s,
            lambda: db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'collect-ops admission' AND datname = current_database()"
            ),
        )
        timer.start()
        try:
            submit(world, path, patience_s=0)
        except BulkStopped as stopped:
            assert "submitting the file again goes on" in str(stopped)
        timer.join()
        assert tasks(world) in (0, 1500)
    submit(world, path)
    assert tasks(world) == 1500


def test_a_slowed_source_is_waited_for(world: World, tmp_path: Path, db: Connection) -> None:
    path = days(tmp_path / "days.csv", 40)
    db.execute(
        "INSERT INTO collect.brake (source, rule, reason, retry_after_s) VALUES ('things', 'r', 'a test', 0.2)"
    )
    with pytest.raises(BulkStopped, match="takes no more tasks for now"):
        submit(world, path, patience_s=0.5)
    assert tasks(world) == 0
    told: list[BulkProgress] = []
    timer = threading.Timer(0.6, lambda: db.execute("DELETE FROM collect.brake"))
    timer.start()
    began = time.monotonic()
    assert submit(world, path, patience_s=20, tell=told.append) == {"admitted": 40}
    assert time.monotonic() - began > 0.5
    timer.join()
    assert any(each.waiting_for and "takes no more tasks" in each.waiting_for for each in told)


def test_a_preview_changes_nothing(world: World, tmp_path: Path) -> None:
    submit(world, days(tmp_path / "first.csv", 10))
    path = days(tmp_path / "days.csv", 250)
    with path.open("rb") as file:
        checked, counts = BulkAdmission(world.service()).preview(file, JOB)
    assert (checked.lines, checked.bad, counts) == (250, 0, {"admitted": 240, "duplicate": 10})
    assert tasks(world) == 10
