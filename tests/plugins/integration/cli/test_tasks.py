"""`collect-ops tasks`: what it finds, page by page, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from collect_ops.storage import connect
from tests.factories import source
from tests.plugins.integration.world import World
from tests.servers.paged import PagedServer

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def found(collect_ops: Run) -> Callable[..., list[dict[str, Any]]]:
    """The tasks that the command lists."""

    def list_tasks(*arguments: object) -> list[dict[str, Any]]:
        code, out, _ = collect_ops("tasks", "--json", *arguments)
        assert code == 0
        rows: list[dict[str, Any]] = json.loads(out)
        return rows

    return list_tasks


def change(world: World, task_id: int, assignments: str) -> None:
    with connect(world.backends.postgres_dsn) as connection:
        connection.execute(
            f"UPDATE collect.task SET {assignments} WHERE id = %s",  # type: ignore[arg-type]
            [task_id],
        )


def test_filters(world: World, found: Callable[..., list[dict[str, Any]]]) -> None:
    world.add(source("things"), source("others"))
    first = world.submit("things", params={"day": "a"}).task_id
    second = world.submit("others", params={"day": "b"}, priority=9).task_id
    third = world.submit("things", params={"day": "c"}, priority=1).task_id
    change(
        world,
        first,
        "created_at = now() - interval '3 hours', status = 'CANCELLED', reason = 'Host went AWAY'",
    )

    def ids(*arguments: object) -> list[int]:
        return [row["task_id"] for row in found(*arguments)]

    assert ids() == [third, second, first]
    assert ids("--source", "things") == [third, first]
    assert ids("--lane", "urgent") == [second]
    assert ids("--priority", "9") == ids("--priority", "8-10") == [second]
    assert ids("--status", "cancelled") == [first]
    assert ids("--status", "queued", "--status", "CANCELLED") == [third, second, first]
    assert ids("--since", "2h") == [third, second]
    assert ids("--until", "2h") == [first]
    assert ids("--text", "went away") == [first]
    assert ids("--limit", 2) == [third, second]
    assert ids("--limit", 2, "--before", second) == [first]


def test_the_screen_shows_the_way_to_the_next_page(world: World, collect_ops: Run) -> None:
    world.add(source("things"))
    tasks = [world.submit(params={"day": str(number)}).task_id for number in range(3)]
    code, out, _ = collect_ops("tasks", "--limit", 2)
    assert (code, f"more: --before {tasks[1]}" in out) == (0, True)
    code, out, _ = collect_ops("tasks", "--limit", 4)
    assert (code, "more:" in out) == (0, False)


@pytest.mark.parametrize(
    ("arguments", "option", "allowed"),
    [
        (("--status", "died"), "--status", "DEAD"),
        (("--lane", "fast"), "--lane", "urgent"),
        (("--priority", "11"), "--priority", "0 to 10"),
        (("--priority", "9-8"), "--priority", "0 to 10"),
        (("--since", "yesterday"), "--since", "ISO 8601"),
        (("--since", "999999w"), "--since", "ISO 8601"),
        (("--until", "2026-01-31T08:00:00"), "--until", "offset"),
        (("--source", "thinks"), "thinks", "example_offset"),
    ],
)
def test_bad_input(
    world: World, collect_ops: Run, arguments: tuple[str, ...], option: str, allowed: str
) -> None:
    code, out, err = collect_ops("tasks", *arguments)
    assert (code, out) == (2, "")
    assert option in err
    assert allowed in err


def test_a_page_of_one_source_reads_its_index(world: World) -> None:
    from collect_ops.storage import query

    values = dict.fromkeys(
        ("before", "status", "lane", "priority_min", "priority_max", "since", "until", "text")
    )
    with connect(world.backends.postgres_dsn) as connection:
        connection.execute("SET enable_seqscan = off")
        rows = connection.execute(
            "EXPLAIN " + query("tasks/select_tasks"),
            {**values, "source": "things", "limit": 50},
        ).fetchall()
    plan = "\n".join(row["QUERY PLAN"] for row in rows)
    assert "task_source_recent" in plan
    assert "Sort" not in plan.split("CTE page")[1].split("->  Nested Loop")[0]


def replacement(**fields: Any) -> Any:
    columns = {"id": {"type": "bigint"}, "name": {"type": "text"}}
    return source(
        "things",
        target={"table": "things", "disposition": "replace", "columns": columns},
        retries={"max_retries": 0, "http_attempts": 1},
        **fields,
    )


def test_status_counts_the_rows_that_stand_in_the_table(
    world: World, collect_ops: Run, found: Callable[..., list[dict[str, Any]]]
) -> None:
    with PagedServer(rows=120) as server:
        world.serve_from(server.base_url)
        world.add(source("things", target={**source().target.model_dump(), "table": "merged"}))
        merged = world.collect()
        world.add(replacement())
        replaced = world.collect(params={"day": "1"})
        older = world.submit(params={"day": "2"}).task_id
        (started,) = world.claim().runs
        world.collect(params={"day": "3"})
        world.run(started.run_id)
    change(world, replaced, 'result = result || \'{"swap": "KEPT"}\'')
    shown = {row["task_id"]: row for row in found()}
    for task_id, landed, in_target, words in (
        (merged, 120, 120, "120 of 120 rows landed ·"),
        (replaced, 120, 0, "120 of 120 rows landed and dropped"),
        (older, 120, 0, "120 of 120 rows landed and dropped"),
    ):
        _, out, _ = collect_ops("status", task_id, "--json")
        status = json.loads(out)
        assert (status["rows_landed"], status["rows_in_target"]) == (landed, in_target), status
        assert (shown[task_id]["rows_landed"], shown[task_id]["rows_in_target"]) == (landed, in_target)
        _, out, _ = collect_ops("status", task_id)
        assert words in out
