"""Tables on screens of every width."""

from __future__ import annotations

import re

import pytest

from collect_ops.cli import output
from collect_ops.cli.preview import cells
from collect_ops.collectors import json_body
from tests.factories import source

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


def test_a_sources_numbers_keep_their_digits(capsys: pytest.CaptureFixture[str]) -> None:
    number = "123456789.123456789123456789"
    records = json_body.parse(
        f'[{{"n": {number}, "deep": [{number}, 1.50], "t": "é"}}]'.encode(), max_depth=8
    )
    output.print_json({"records": records}, as_spelled=True)
    printed = capsys.readouterr().out
    assert f'"n": {number},' in printed
    assert "1.50" in printed
    assert "é" in printed
    columns = {name: {"type": kind} for name, kind in {"n": "numeric", "deep": "jsonb", "t": "text"}.items()}
    _, rows = cells(source(target={"table": "t", "columns": columns}), records)
    assert rows == [[number, f"[{number},1.50]", "é"]]
    odd = json_body.parse(b'[{"n": NaN, "t": "\\ud800"}]', max_depth=8)
    output.print_json({"records": odd}, as_spelled=True)
    assert "NaN" in capsys.readouterr().out
