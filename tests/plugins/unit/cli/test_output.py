"""Tables on screens of every width."""

from __future__ import annotations

import re

import pytest

from collect_ops.cli import output

STYLE = re.compile(r"\x1b\[[0-9;]*m")
HEADINGS = ("task", "status", "source", "took", "reason")
ROW = (
    4711,
    "COMPLETED",
    "carrier_flights",
    "1.4 s",
    "a reason that is rather long, as reasons are: very, very long",
)


@pytest.mark.parametrize("width", [200, 120, 80, 70, 60])
def test_short_cells_stay_in_one_piece(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    output.print_table("", HEADINGS, [ROW], spare=("took",))
    lines = STYLE.sub("", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    for cell in ("4711", "COMPLETED", "carrier_flights"):
        assert any(cell in line for line in lines), lines
    assert any("took" in line for line in lines) is (width > 60)


def test_a_screen_too_narrow_for_anything_folds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    output.print_table("", HEADINGS, [ROW])
    assert "…" not in capsys.readouterr().out
