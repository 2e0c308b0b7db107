"""`collect-ops source pause` and `resume` on the running stack."""

from __future__ import annotations

import os
import sys

import pytest

from collect_ops.cli import main
from collect_ops.lanes.rest_runs import AirflowRefused, RestRuns


@pytest.mark.stack
def test_pause_and_resume(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("resume", "pause"):
        monkeypatch.setattr(sys, "argv", ["collect-ops", "source", command, "example_single"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
    assert capsys.readouterr().out == "example_single: resumed\nexample_single: paused\n"


@pytest.mark.stack
def test_refusals_say_why() -> None:
    with pytest.raises(AirflowRefused, match="HTTP 404"):
        RestRuns.from_environment().set_paused("no_such_dag", paused=True)
    stranger = RestRuns(os.environ["COLLECT_AIRFLOW_URL"], os.environ["COLLECT_AIRFLOW_USER"], "wrong")
    with pytest.raises(AirflowRefused, match="HTTP 401"):
        stranger.set_paused("x", paused=True)
