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


FITS = "every row fits"


def test_every_row_fits_is_said_of_rows_that_were_looked_at(
    world: World, collect_ops: Run, task: int
) -> None:
    """Not of those that `--since` leaves out, that retention has deleted, or that nobody has fetched."""
    assert FITS not in collect_ops("bad-rows", task, "--since", "2100-01-01T00:00:00Z")[1]
    assert FITS not in collect_ops("bad-rows", "things", "--since", "2100-01-01T00:00:00Z")[1]
    waits = world.submit(params={"day": "later"}).task_id
    assert FITS not in collect_ops("bad-rows", waits)[1]
    world.rows(
        "DELETE FROM collect.bad_row WHERE row_text LIKE '%%2, %%' OR reason LIKE '%%n/a%%' RETURNING id"
    )
    out = collect_ops("bad-rows", task)[1]
    assert ("1 bad rows" in out, "4 were met" in out) == (True, True)
    world.rows("DELETE FROM collect.bad_row RETURNING id")
    out = collect_ops("bad-rows", task)[1]
    assert (FITS in out, "4" in out) == (False, True)
    assert FITS not in collect_ops("bad-rows", "things")[1]


def test_a_task_whose_rows_all_fit(world: World, collect_ops: Run) -> None:
    world.add(source("things"))
    with PagedServer(rows=30) as server:
        world.serve_from(server.base_url)
        task_id = world.collect()
    assert FITS in collect_ops("bad-rows", task_id)[1]


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
