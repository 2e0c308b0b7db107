"""`collect-ops bad-rows`: reasons, examples and the export."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.factories import source
from tests.plugins.integration.world import World
from tests.servers.paged import PagedServer

Run = Callable[..., tuple[int, str, str]]


def with_faults(number: int) -> dict[str, Any]:
    """Every tenth row has a name where a number is declared, row 7 one that is too large."""
    size: Any = 'n/a, "sic"' if number % 10 == 0 else 2**40 if number == 7 else number
    return {"id": number, "name": f"thing {number}", "size": f"{size}"}


@pytest.fixture
def task(world: World) -> int:
    """A task of 30 rows of which 4 did not fit."""
    columns = {"id": {"type": "bigint"}, "size": {"type": "integer"}}
    target = {"table": "things", "disposition": "merge", "key": ["id"], "columns": columns}
    world.add(source("things", target=target, max_bad_rows=100))
    with PagedServer(rows=30) as server:
        server.changed = {number: with_faults(number) for number in range(30)}
        world.serve_from(server.base_url)
        return world.collect(request_id="bad-rows-of-things")


@pytest.mark.parametrize("by", ["task", "request", "source"])
def test_reasons_with_examples(collect_ops: Run, task: int, by: str) -> None:
    whose = {"task": task, "request": "bad-rows-of-things", "source": "things"}[by]
    code, out, _ = collect_ops("bad-rows", whose, "--json")
    found = json.loads(out)
    assert (code, found["row_count"], found["reason_count"]) == (0, 4, 2)
    syntax, too_large = found["groups"]
    assert (syntax["row_count"], too_large["row_count"]) == (3, 1)
    assert "size" in syntax["pattern"]
    assert "n/a" not in syntax["pattern"]
    assert [json.loads(each["row_text"])["id"] for each in syntax["examples"]] == [20, 0]
    assert [json.loads(each["row_text"])["id"] for each in too_large["examples"]] == [7]
    assert {each["task_id"] for each in syntax["examples"]} == {task}
    code, out, _ = collect_ops("bad-rows", whose)
    assert (code, "4 bad rows, 2 reasons" in out, '"id":20' in out) == (0, True, True)


def test_since_and_limit(world: World, collect_ops: Run, task: int) -> None:
    found = json.loads(collect_ops("bad-rows", task, "--limit", 1, "--json")[1])
    assert (found["reason_count"], len(found["groups"])) == (2, 1)
    found = json.loads(collect_ops("bad-rows", task, "--since", "2100-01-01T00:00:00Z", "--json")[1])
    assert found == {"row_count": 0, "reason_count": 0, "groups": []}


def test_export(collect_ops: Run, task: int, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    assert collect_ops("bad-rows", task, "--csv", path)[0] == 0
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert [json.loads(row["row_text"])["id"] for row in rows] == [0, 7, 10, 20]
    assert {(row["task_id"], row["source"]) for row in rows} == {(str(task), "things")}
    code, out, err = collect_ops("bad-rows", task, "--csv", "-")
    assert (code, len(list(csv.DictReader(io.StringIO(out)))), "4 rows" in err) == (0, 4, True)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("no_such_source",), "TASK|SOURCE"),
        (("123456",), "TASK|SOURCE"),
        (("example_offset", "--since", "yesterday"), "--since"),
        (("example_offset", "--csv", "/no/such/folder/x.csv"), "--csv"),
        (("example_offset", "--csv", "x.csv", "--json"), "--json"),
    ],
)
def test_bad_input(world: World, collect_ops: Run, arguments: tuple[str, ...], named: str) -> None:
    code, out, err = collect_ops("bad-rows", *arguments)
    assert (code, out) == (2, "")
    assert named in err
