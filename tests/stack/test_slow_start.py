"""`make up` waits for a service for as long as it gets on with its start; one that does not is given up.

Under a real supervisord, with real processes and the real health check; only the times are shorter.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stack import bring_up, progress, supervisor
from stack.faults import NotHealthy
from stack.layout import Layout
from stack.programs import programs
from stack.settings import Stack, load_or_create
from tests.stack import slow_service

pytestmark = pytest.mark.timeout(240)
PATIENCE_S, STALLED_S, EXTENSIONS = 2.0, 3.0, 6
SERVICE = "redis"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A service that was started, and is waited for."""

    stack: Stack

    def wait(self) -> float:
        """As `make up` does; returns how long it took."""
        said: list[str] = []
        return bring_up.wait(self.stack, programs(self.stack)[SERVICE], said.append, time.monotonic())


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Started]]:
    """Starts a service whose start is of a kind (see slow_service.py), in Redis' place."""
    layout = Layout(home=tmp_path / "stack")
    monkeypatch.setattr(bring_up, "HEALTHY_WITHIN_S", PATIENCE_S)
    monkeypatch.setattr(bring_up, "MOST_EXTENSIONS", EXTENSIONS)
    monkeypatch.setattr(progress, "STALLED_S", STALLED_S)
    monkeypatch.setattr(progress, "STEP_S", slow_service.STEP_S)

    def started(kind: str) -> Started:
        stack = load_or_create(layout, {})
        monkeypatch.setattr(supervisor, "configuration", lambda _: configuration(stack, kind))
        supervisor.start(stack)
        supervisor.start_program(layout, SERVICE)
        return Started(stack=stack)

    original = supervisor.configuration

    def configuration(stack: Stack, kind: str) -> str:
        """The stack's own, but for what one service executes."""
        own = f'" -m stack become {SERVICE}\n'
        text = original(stack)
        assert text.count(own) == 1
        head, tail = text.split(own)
        command = f'"{sys.executable}" {slow_service.__file__} {kind} {stack.ports.redis}'
        return f"{head[: head.rindex('command=')]}command={supervisor.escaped(command)}\n{tail}"

    yield started
    bring_up.clean(layout, print)


def test_a_start_that_gets_on_is_waited_for_beyond_its_time(start: Callable[[str], Started]) -> None:
    seconds = start("slow").wait()
    # One that is stuck has no more than this.
    assert PATIENCE_S + STALLED_S < seconds <= EXTENSIONS * PATIENCE_S


def test_a_start_that_is_stuck_is_given_up(start: Callable[[str], Started]) -> None:
    with pytest.raises(NotHealthy) as given_up:
        start("stuck").wait()
    error = given_up.value
    assert PATIENCE_S < error.seconds < EXTENSIONS * PATIENCE_S
    assert error.service == SERVICE
    assert "refused" in error.reason
    assert error.log_tail == "waiting for what never comes"


def test_a_service_that_ends_and_begins_anew_is_given_up(start: Callable[[str], Started]) -> None:
    with pytest.raises(NotHealthy) as given_up:
        start("ending").wait()
    assert PATIENCE_S < given_up.value.seconds < EXTENSIONS * PATIENCE_S
    assert given_up.value.log_tail.count("beginning anew") > 1


def test_a_start_that_never_ends_is_given_up_in_the_end(start: Callable[[str], Started]) -> None:
    with pytest.raises(NotHealthy) as given_up:
        start("endless").wait()
    assert given_up.value.seconds > EXTENSIONS * PATIENCE_S
    assert "step" in given_up.value.log_tail
