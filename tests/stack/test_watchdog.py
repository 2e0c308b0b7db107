"""Who is given up: only what runs, was looked at without a break, and has been unwell for its time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stack import credentials
from stack.layout import Layout
from stack.node_settings import LOCAL, NodeSettings
from stack.ports import Ports
from stack.settings import Stack
from stack.watchdog import (
    IDLE_WORKER_S,
    SILENT_JOB_S,
    SILENT_SERVER_S,
    STARTS_WITHIN_S,
    Finding,
    Patience,
    keep,
    look,
    recall,
    watched,
)

WELL, ILL = Finding(pid=7, complaint=None), Finding(pid=7, complaint="last heartbeat 31 s ago")


def first_overdue(
    patience: Patience, name: str, finding: Finding, *, began: float, until: float
) -> float | None:
    """Seconds after `began` at which a service that stays as it is is given up."""
    now = began
    while now <= until:
        if patience.overdue({name: finding}, now):
            return now - began
        now += patience.look_every_s
    return None


@pytest.mark.parametrize(
    ("name", "limit_s"),
    [
        ("scheduler", SILENT_JOB_S),
        ("triggerer", SILENT_JOB_S),
        ("dag-processor", SILENT_JOB_S),
        ("worker", IDLE_WORKER_S),
        ("worker-control", IDLE_WORKER_S),
        ("api-server", SILENT_SERVER_S),
    ],
)
def test_a_service_that_was_well_has_its_time(name: str, limit_s: float) -> None:
    patience = Patience()
    assert patience.overdue({name: WELL}, 0.0) == []
    assert first_overdue(patience, name, ILL, began=5.0, until=3000.0) == limit_s


def test_a_start_has_more_time_and_ends_as_well() -> None:
    assert first_overdue(Patience(), "scheduler", ILL, began=0.0, until=3000.0) == STARTS_WITHIN_S
    patience = Patience()
    patience.overdue({"scheduler": WELL}, 0.0)
    started_anew = Finding(pid=8, complaint="no heartbeat since its start")
    assert first_overdue(patience, "scheduler", started_anew, began=5.0, until=3000.0) == STARTS_WITHIN_S


def test_a_good_look_begins_anew() -> None:
    patience = Patience()
    for now in range(0, 1000, 5):
        finding = WELL if now % 30 == 0 else ILL
        assert patience.overdue({"scheduler": finding}, float(now)) == []


def test_nobody_is_judged_by_a_time_that_nobody_saw() -> None:
    patience = Patience()
    patience.overdue({"scheduler": WELL}, 0.0)
    patience.overdue({"scheduler": ILL}, 5.0)
    assert patience.overdue({"scheduler": ILL}, 500.0) == [], "the machine slept"
    patience.overdue({}, 505.0)  # PostgreSQL is away: it cannot be judged
    assert first_overdue(patience, "scheduler", ILL, began=510.0, until=3000.0) == SILENT_JOB_S


def test_who_was_well_is_known_to_the_next_watchdog(tmp_path: Path) -> None:
    """Else whatever hangs when the watchdog is started anew would count as starting."""
    layout = Layout(home=tmp_path)
    layout.create()
    patience = recall(layout)
    assert patience.well_pids == {}
    patience.overdue({"scheduler": WELL, "worker": ILL}, 0.0)
    keep(layout, patience)
    assert first_overdue(recall(layout), "scheduler", ILL, began=500.0, until=3000.0) == SILENT_JOB_S
    assert first_overdue(recall(layout), "worker", ILL, began=500.0, until=3000.0) == STARTS_WITHIN_S
    started_anew = Finding(pid=8, complaint="no heartbeat since its start")
    assert (
        first_overdue(recall(layout), "scheduler", started_anew, began=0.0, until=3000.0) == STARTS_WITHIN_S
    )


def test_a_look_keeps_who_is_well(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path)
    layout.create()
    stack = Stack(layout=layout, ports=Ports.from_base(20_000), secrets=credentials.generate())
    patience = Patience(well_pids={"scheduler": 7})
    assert look(stack, patience, print, 0.0) == []
    assert recall(layout).well_pids == {"scheduler": 7}


@given(st.lists(st.booleans(), max_size=200))
def test_nothing_that_was_well_a_moment_ago_is_given_up(looks: list[bool]) -> None:
    patience = Patience()
    last_well = 0.0
    for number, well in enumerate(looks):
        now = number * patience.look_every_s
        last_well = now if well else last_well
        if patience.overdue({"scheduler": WELL if well else ILL}, now):
            assert now - last_well >= SILENT_JOB_S


@pytest.mark.parametrize(
    ("nodes", "workers"),
    [
        (NodeSettings(), {"worker"}),
        (NodeSettings(executor=LOCAL), set()),
        (NodeSettings(count=1), {"worker-control", "worker-1"}),
    ],
)
def test_whatever_starts_and_runs_tasks_is_watched(nodes: NodeSettings, workers: set[str]) -> None:
    stack = Stack(
        layout=Layout(home=Path("/nowhere")),
        ports=Ports.from_base(20_000),
        secrets=credentials.generate(),
        nodes=nodes,
    )
    names = {program.name for program in watched(stack)}
    assert names == {"api-server", "scheduler", "dag-processor", "triggerer", *workers}
