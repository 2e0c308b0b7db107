"""What a `make up` that failed leaves: `make restart` and `make status` know what was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack import bring_up, report, supervisor
from stack.faults import NotHealthy, StackError
from stack.layout import Layout
from stack.settings import load, remember

pytestmark = pytest.mark.timeout(120)


def test_a_restart_after_a_first_start_that_failed_starts_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(home=tmp_path / "stack")
    said: list[str] = []
    try:
        with monkeypatch.context() as impatient:
            impatient.setattr(bring_up, "wait", _not_healthy)
            with pytest.raises(NotHealthy):
                bring_up.up(layout, ["redis"], said.append, {})
        before = supervisor.states(layout)["redis"].pid
        states = {line.service: line.state for line in report.status(load(layout))}
        assert {name for name, state in states.items() if state != "off"} == {"redis"}
        bring_up.restart(layout, [], said.append)
        assert supervisor.states(layout)["redis"].pid not in (0, before)
        assert said[-1].startswith("redis")
        # As a start leaves it that failed even before it knew what to start.
        remember(layout, wanted=[])
        with pytest.raises(StackError):
            bring_up.restart(layout, [], said.append)
    finally:
        bring_up.clean(layout, said.append)


def _not_healthy(*_: object) -> float:
    raise NotHealthy("redis", 0.0, "it does not answer", "")
