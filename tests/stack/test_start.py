"""Starting again and again, secrets, pools, folders."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stack import credentials
from stack.faults import UnknownService
from stack.launch import LONGEST_PAUSE_S, pause_before
from stack.layout import Layout, enterable_by_others
from stack.pools import pools
from stack.ports import Ports
from stack.programs import BASE, named
from stack.settings import Stack


def test_a_program_that_ran_for_a_while_starts_at_once() -> None:
    assert pause_before([], 1000.0) == 0.0
    assert pause_before([900.0, 950.0], 1000.0) == 0.0


def test_the_pause_doubles_with_each_quick_end_and_has_a_limit() -> None:
    starts: list[float] = []
    now, pauses = 1000.0, []
    for _ in range(8):
        pauses.append(pause_before(starts, now))
        now += pauses[-1]
        starts.append(now)
        now += 1.0
    assert pauses == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


PLAIN = Stack(layout=Layout(home=Path("/nowhere")), ports=Ports.from_base(20_000), secrets={})


@given(st.lists(st.floats(0, 1e9)).map(sorted), st.floats(0, 1e9))
def test_a_pause_is_never_longer_than_its_limit(starts: list[float], now: float) -> None:
    assert 0.0 <= pause_before(starts, now) <= LONGEST_PAUSE_S


def test_secrets_are_private_kept_and_completed(tmp_path: Path) -> None:
    file = tmp_path / "secrets.env"
    first = credentials.load_or_generate(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert credentials.load_or_generate(file) == first
    assert len(set(first.values())) == len(first)
    assert len(first["AIRFLOW_JWT_SECRET"].encode()) >= 64
    file.write_text("REDIS_PASSWORD=mine\n")
    assert credentials.load_or_generate(file)["REDIS_PASSWORD"] == "mine"


@pytest.mark.parametrize(
    ("name", "started"),
    [
        ("postgres", ["postgres"]),
        ("rabbitmq", ["epmd", "rabbitmq"]),
        ("agent", ["postgres", "redis", "epmd", "rabbitmq", "agent"]),
    ],
)
def test_a_service_is_started_with_what_its_services_need(name: str, started: list[str]) -> None:
    assert [program.name for program in named(PLAIN, [name])] == started


def test_each_lane_and_the_control_tasks_have_a_pool() -> None:
    assert set(pools()) == {"collect_urgent", "collect_normal", "collect_bulk", "collect_control"}
    assert all(isinstance(pool["slots"], int) and pool["slots"] > 0 for pool in pools().values())


def test_a_service_brings_what_it_needs_in_order() -> None:
    assert [program.name for program in named(PLAIN, ["rabbitmq"])] == ["epmd", "rabbitmq"]
    assert tuple(program.name for program in named(PLAIN, [])) == (*BASE, "worker")


def test_an_unknown_service_is_named_with_what_is_allowed() -> None:
    with pytest.raises(UnknownService, match=r"'rabit' is unknown; allowed: postgres, redis, epmd, rabbitmq"):
        named(PLAIN, ["rabit"])


def test_data_of_postgres_leaves_a_folder_it_cannot_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr("stack.layout.runs_as_root", lambda: True)
    layout = Layout(home=closed / "stack")
    assert not enterable_by_others(closed)
    assert layout.postgres_data == Path(f"/var/tmp/collect-ops-{layout.stack_id}/postgres")


def test_a_socket_path_too_long_for_the_kernel_is_moved(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path / ("x" * 100))
    assert len(str(layout.supervisor_socket)) < 100
