"""What counts as other code, for which programs; and what is restarted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from collect_ops.kernel.code import code_digest, version_with_code
from stack import code, credentials
from stack.code import Code, Sources
from stack.layout import Layout
from stack.node_settings import LOCAL, NodeSettings
from stack.ports import Ports
from stack.programs import programs
from stack.settings import Stack
from stack.supervisor import ProcessState

SERVERS = {"postgres", "redis", "rabbitmq", "epmd"}
FILES = {
    "plugins/collect_ops/a.py": "A = 1",
    "include/sql/queries/tasks/read.sql": "SELECT 1",
    "include/sql/migrations/0001_first.sql": "SELECT 1",
    "include/lua/limit.lua": "return 1",
    "include/rules/lanes.yaml": "lanes: {}",
    "include/sources/flights.yaml": "name: flights",
    "dags/lanes.py": "",
    "config/airflow_local_settings.py": "",
    "config/redis.conf": "save ''",
    "config/postgresql.conf": "fsync = on",
    "stack/watchdog.py": "",
    "requirements.lock": "airflow==3",
    "docs/operations.md": "",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / "checkout" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "checkout"


@pytest.fixture
def stack(tmp_path: Path, checkout: Path) -> Stack:
    layout = Layout(home=tmp_path / "home", checkout=checkout)
    layout.create()
    return Stack(layout=layout, ports=Ports.from_base(20_000), secrets=credentials.generate())


def running(stack: Stack) -> dict[str, ProcessState]:
    return {
        name: ProcessState(pid=number, state="RUNNING", since=1)
        for number, name in enumerate(programs(stack), start=100)
    }


def start_all(stack: Stack) -> dict[str, ProcessState]:
    states = running(stack)
    for name, program in programs(stack).items():
        code.write_note(stack, program, states[name].pid)
    return states


def test_what_has_just_started_runs_this_code(stack: Stack) -> None:
    assert code.outdated(stack, start_all(stack)) == []


@pytest.mark.parametrize(
    ("changed", "restarted"),
    [
        ("plugins/collect_ops/a.py", "airflow"),
        ("include/sql/queries/tasks/read.sql", "airflow"),
        ("include/lua/limit.lua", "airflow"),
        ("include/rules/lanes.yaml", "airflow"),
        ("config/airflow_local_settings.py", "airflow"),
        ("requirements.lock", "airflow"),
        ("config/redis.conf", "redis"),
        ("config/postgresql.conf", "postgres"),
        ("stack/watchdog.py", "watchdog"),
        ("include/sql/migrations/0001_first.sql", ""),
        ("include/sources/flights.yaml", ""),
        ("dags/lanes.py", ""),
        ("docs/operations.md", ""),
    ],
)
def test_who_runs_other_code_after_a_change(stack: Stack, changed: str, restarted: str) -> None:
    states = start_all(stack)
    file = stack.layout.checkout / changed
    file.write_text(file.read_text() + "\n-- another\n")
    expected = set(programs(stack)) - SERVERS if restarted == "airflow" else {restarted} - {""}
    assert set(code.outdated(stack, states)) == expected


def test_a_file_that_is_new_or_gone_is_other_code(stack: Stack) -> None:
    first = code_digest(stack.layout.checkout)
    new = stack.layout.checkout / "plugins" / "collect_ops" / "b.py"
    new.write_text("")
    second = code_digest(stack.layout.checkout)
    new.unlink()
    assert first != second
    assert code_digest(stack.layout.checkout) == first
    (stack.layout.checkout / "plugins" / "collect_ops" / "a.py").rename(new)
    assert code_digest(stack.layout.checkout) not in (first, second)


def test_a_process_without_a_note_or_with_anothers_runs_other_code(stack: Stack) -> None:
    states = start_all(stack)
    (stack.layout.run / "scheduler.code").unlink()
    states["triggerer"] = replace(states["triggerer"], pid=7)
    assert code.outdated(stack, states) == ["scheduler", "triggerer"]


def test_what_does_not_run_has_no_code(stack: Stack) -> None:
    states = start_all(stack)
    states["worker"] = ProcessState(pid=0, state="STOPPED", since=0)
    sources = Sources.of(stack.layout.checkout)
    known = programs(stack)
    assert code.code_of(stack, known["worker"], states["worker"], sources) is None
    assert code.code_of(stack, known["agent"], states["agent"], sources) is Code.CURRENT
    assert code.outdated(stack, states) == []


def test_another_way_to_be_started_is_other_code(stack: Stack) -> None:
    states = start_all(stack)
    changed = replace(stack, nodes=NodeSettings(executor=LOCAL))
    assert "scheduler" in code.outdated(changed, states)
    assert "redis" not in code.outdated(changed, states)


def test_what_a_machine_is_called_by_who_asks_is_not_code(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = start_all(stack)
    monkeypatch.setenv("COLLECT_NODE_ID", "elsewhere")
    assert code.outdated(stack, states) == []


def test_a_note_is_for_its_owner_alone(stack: Stack) -> None:
    start_all(stack)
    assert {file.stat().st_mode & 0o077 for file in stack.layout.run.glob("*.code")} == {0}


def test_nodes_say_which_code_they_run() -> None:
    version, _, digest = version_with_code().partition("+")
    assert version
    assert digest == code_digest()[:12]
