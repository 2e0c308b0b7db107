"""`collect-ops source pause` and `resume` on the running stack."""

from __future__ import annotations

import sys

import pytest

from collect_ops.cli import main
from collect_ops.cli.airflow_api import AirflowApi, AirflowRefused


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
    api = AirflowApi.from_environment()
    with pytest.raises(AirflowRefused, match="HTTP 404"):
        api.set_paused("no_such_dag", paused=True)
    with pytest.raises(AirflowRefused, match="HTTP 401"):
        AirflowApi(url=api.url, user=api.user, password="wrong").set_paused("x", paused=True)
