"""`collect-ops dead …` on real dead letters: what it prints, what it does, how it ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collect_ops.cli import main
from tests.plugins.integration.delivery.letters import dead_tasks, drained, letters_of, published, state_of
from tests.plugins.integration.world import World, source

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; returns exit status, stdout and stderr."""
    world.add(source())
    monkeypatch.setenv("COLLECT_POSTGRES_DSN", world.backends.postgres_dsn)
    monkeypatch.setenv("COLLECT_REDIS_URL", world.backends.redis_url)
    monkeypatch.setenv("COLLECT_AMQP_URL", world.backends.amqp_url)
    monkeypatch.delenv("COLLECT_AIRFLOW_URL", raising=False)

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["collect-ops", "dead", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        out, err = capsys.readouterr()
        return (code if isinstance(code, int) else 0), out, err

    return command


def as_json(done: tuple[int, str, str]) -> Any:
    assert done[0] == 0, done
    return json.loads(done[1])


def test_looking(world: World, run: Run) -> None:
    ids = dead_tasks(world, 3)
    published(world)
    drained(world)
    letters = letters_of(world, ids)
    assert [row["id"] for row in as_json(run("list", "--json", "--source", "things"))] == letters[::-1]
    (group,) = as_json(run("groups", "--json"))
    assert (group["letters"], group["example_id"]) == (3, letters[-1])
    code, out, _ = run("groups")
    assert (code, group["fingerprint"] in out, "answered 503" in out) == (0, True, True)
    code, out, _ = run("list", "--group", group["fingerprint"], "--limit", 1)
    assert (code, f"--before {letters[-1]}" in out) == (0, True)
    code, out, _ = run("show", letters[0])
    assert code == 0
    for word in ("answered 503", "headers", "CLAIMED", "admit", str(ids[0])):
        assert word in out, word
    assert as_json(run("show", letters[0], "--json"))["task"]["task_id"] == ids[0]


def test_edit_and_redrive_and_take_back(world: World, run: Run) -> None:
    ids = dead_tasks(world, 2)
    letters = letters_of(world, ids)
    code, out, _ = run("edit", letters[0], "-p", "day=right", "--priority", 8, "-r", "a typo")
    assert code == 0
    assert '{"day":"day 0"} -> {"day":"right"}' in out
    done = as_json(run("redrive", *letters, "--rate", 1000, "--json"))
    assert (done["done"], done["skipped"]) == (2, 0)
    assert world.task(ids[0])["moved_by"].startswith("cli:")
    code, out, _ = run("status")
    assert (code, f"redrive {done['id']}: finished" in out) == (0, True)
    code, out, err = run("redrive", letters[0])
    assert (code, "is REDRIVEN" in err) == (1, True)
    code, out, _ = run("take-back", "--redrive", done["id"])
    assert (code, out) == (0, "open again: 2\n")
    code, out, err = run("take-back", letters[0])
    assert (code, f"dead letter {letters[0]}: is OPEN" in err) == (1, True)


def test_discard_and_cancel(world: World, run: Run) -> None:
    letters = letters_of(world, dead_tasks(world, 2))
    assert run("discard", letters[0])[0] == 2, "without a reason"
    assert run("discard", letters[0], "-r", "gone")[:2] == (0, "discarded: 1\n")
    assert state_of(world, letters[0]) == "DISCARDED"
    begun = as_json(run("redrive", "--state", "open", "--detach", "--json"))
    assert (begun["total"], begun["pending"]) == (1, 1)
    code, out, _ = run("cancel", begun["id"])
    assert (code, "cancelled" in out) == (0, True)
    assert state_of(world, letters[1]) == "OPEN"


def test_a_messages_body_from_a_file(world: World, run: Run, tmp_path: Path) -> None:
    from tests.plugins.integration.delivery.test_redrive import lane_message

    letter = lane_message(world, b"{oops")
    mended = tmp_path / "body.json"
    mended.write_text('{"schema": 1, "task_id": 1, "generation": 1}')
    assert run("edit", letter, "--body-file", mended)[0] == 0
    assert run("redrive", letter)[0] == 0
    assert world.claim().orphans == 1, "there is no such task"
    code, out, _ = run("show", letter)
    assert (code, "{oops" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", 10**9), "does not exist"),
        (("redrive",), "nothing given would mean all"),
        (("redrive", 10**9), "does not exist"),
        (("list", "--state", "GONE"), "state"),
        (("list", "--since", "yesterday"), "since"),
        (("edit", 10**9, "-p", "day"), "NAME=VALUE"),
        (("cancel", 10**9), "does not exist"),
        (("status", 10**9), "does not exist"),
    ],
)
def test_bad_input_is_named(run: Run, arguments: tuple[object, ...], words: str) -> None:
    code, _, err = run(*arguments)
    assert (code, words in err) == (2, True), err
