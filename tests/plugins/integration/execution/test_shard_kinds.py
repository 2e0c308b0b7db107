"""Every kind of shards on real services: what lands is exact, what does not add up is told, sizes follow the pace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from collect_ops.execution.rules import sharding_rules
from collect_ops.sources.model import Source
from collect_ops.storage import Connection, connect, query
from tests.plugins.integration.execution.checks import (
    assert_exact,
    claim_next,
    landed,
    open_things,
    plan_groups,
    start,
    target,
)
from tests.plugins.integration.world import World, source
from tests.servers.paged import Failure, PagedServer

Serve = Callable[..., PagedServer]
HERE = "tests.plugins.unit.execution.entry_points"
MATCHING = {"type": "body", "path": "matching"}
KEYS = {"by": "key_range", "low": "first", "high": "last", "bounds": "closed", "step": 30}
HOURS = {"by": "date_window", "start": "start", "end": "end"}
IDS = {"by": "values", "param": "ids", "separator": ",", "per_shard": 7}
ASKED = {"path": "/edges", "low": "low", "high": "high"}


def selecting(
    shards: Mapping[str, Any], path: str, params: Mapping[str, str], name: str = "things", **fields: Any
) -> Source:
    """A source whose shards ask for parts, in pages of 10 rows; duplicates would land as such."""
    request = {
        "path": path,
        "params": {param: {"type": kind} for param, kind in params.items()},
        "query": {param: f"{{{param}}}" for param in params},
    }
    declared: dict[str, Any] = {"total": MATCHING, "page_size": 10, "target": target("append"), **fields}
    declared["request"] = {**request, "query": {**request["query"], **fields.get("query", {})}}
    declared.pop("query", None)
    return source(name, shards=shards, **declared)


INTEGERS = {"first": "integer", "last": "integer"}


def trace_of(world: World, task_id: int) -> dict[str, Any]:
    found = world.rows("SELECT response FROM collect.trace WHERE task_id = %s AND stage = 'plan'", task_id)
    return dict(found[-1]["response"])


def shards_of(world: World, task_id: int) -> list[dict[str, Any]]:
    return [
        row["params"]
        for row in world.rows(
            "SELECT params FROM collect.shard WHERE task_id = %s ORDER BY shard_no", task_id
        )
    ]


KINDS = {
    "key range that is asked for": (
        selecting({**KEYS, "range": ASKED}, "/select", INTEGERS), {}, 4,
    ),
    "key range of the submission": (
        selecting({**KEYS, "range": ASKED}, "/select", INTEGERS), {"first": 0, "last": 99}, 4,
    ),
    "windows of hours, half-open": (
        selecting(
            {**HOURS, "bounds": "half_open", "window": "PT7H", "range": {**ASKED, "low": "first", "high": "last"}},
            "/window", {"start": "datetime", "end": "datetime"},
        ), {}, 15,
    ),
    "windows of hours, closed": (
        selecting(
            {
                **HOURS, "bounds": "closed", "window": "P1M", "resolution": "PT1S",
                "range": {**ASKED, "low": "first", "high": "last"},
            },
            "/window", {"start": "datetime", "end": "datetime"}, query={"closed": 1},
        ), {"start": "2024-01-30T00:00:00Z"}, 1,
    ),
    "days, closed": (
        selecting(
            {**HOURS, "bounds": "closed", "days": 2, "range": ASKED},
            "/window", {"start": "date", "end": "date"}, query={"closed": 1},
        ), {"start": "2024-01-30", "end": "2024-02-03"}, 3,
    ),
    "months of days, half-open": (
        selecting(
            {**HOURS, "bounds": "half_open", "window": "P1D", "range": ASKED},
            "/window", {"start": "date", "end": "date"},
        ), {"start": "2024-01-30", "end": "2024-02-04"}, 5,
    ),
    "values of the submission": (
        selecting({**IDS, "values": ["1"]}, "/select", {"ids": "string"}),
        {"ids": ",".join(map(str, range(100)))}, 15,
    ),
    "values of the declaration": (
        selecting({**IDS, "values": [str(number) for number in range(100)]}, "/select", {"ids": "string"}), {}, 15,
    ),
    "an entry point": (
        selecting({"by": "entry_point", "entry_point": f"{HERE}:thirds"}, "/select", INTEGERS), {}, 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_lands_once(world: World, serve: Serve, kind: str) -> None:
    declared, params, shards = KINDS[kind]
    server = serve(rows=100)
    world.add(declared)
    world.serve_from(server.base_url)
    task = world.task(world.collect(params=params))
    assert (task["status"], task["reason"]) == ("COMPLETED", None)
    assert (task["shards_total"], task["result"]["done"]) == (shards, shards)
    assert (task["result"]["rows_fetched"], task["result"]["total_rows"]) == (100, 100)
    assert_exact(world, 100, because=kind)
    assert open_things(world) == 0


def test_an_empty_source_completes_without_shards(world: World, serve: Serve) -> None:
    world.add(selecting({**KEYS, "range": ASKED}, "/select", INTEGERS))
    world.serve_from(serve(rows=0).base_url)
    task = world.task(world.collect())
    assert (task["status"], task["shards_total"]) == ("COMPLETED", 0)
    assert open_things(world) == 0


def test_groups_are_named_after_what_they_ask_for(world: World, serve: Serve) -> None:
    world.add(selecting({**KEYS, "range": ASKED}, "/select", INTEGERS, limits={"concurrency": 2}))
    world.serve_from(serve(rows=100).base_url)
    task_id, run_id = start(world)
    labels = [group.label for group in world.plan(run_id).groups]
    assert labels == ["things 0..29 … 30..59", "things 60..89 … 90..99"]
    trace = trace_of(world, task_id)
    assert (trace["groups"], trace["sharding"]) == (labels, "4 key ranges, ranges of 30 keys")


def test_a_shard_goes_on_after_its_last_committed_page(world: World, serve: Serve) -> None:
    server = serve(rows=100)
    world.add(selecting({**KEYS, "range": ASKED}, "/select", INTEGERS))
    world.serve_from(server.base_url)
    broken = {"first": "60", "offset": "10"}
    server.fail_where(lambda request: broken.items() <= request.query.items(), Failure(status=500))
    task_id = world.collect()
    task = world.task(task_id)
    assert (task["status"], task["result"]["done"], task["result"]["failed"]) == ("RETRYING", 3, 1)
    before = shards_of(world, task_id)
    server.mend()
    server.requests.clear()
    world.run(claim_next(world))
    assert world.task(task_id)["status"] == "COMPLETED"
    assert [(each.query["first"], each.query["offset"]) for each in server.requests] == [
        ("60", "10"),
        ("60", "20"),
    ]
    assert shards_of(world, task_id) == before, "an attempt keeps the shards that are stored"
    assert_exact(world, 100)


def test_a_shard_that_does_not_add_up_is_partial_and_says_which(world: World, serve: Serve) -> None:
    """Another one has as many too many: the sum is right, and it is told all the same."""
    server = serve(rows=60)
    world.add(selecting({**KEYS, "range": ASKED}, "/select", INTEGERS, page_size=None, batch_size=50))
    world.serve_from(server.base_url)
    for first, named in (("0", 31), ("30", 29)):
        body = b'{"rows": [%s], "matching": %d}' % (b",".join(b'{"id": 1}' for _ in range(30)), named)
        server.fail_where(
            lambda request, first=first: (
                request.query.get("first") == first and request.query["offset"] == "0"
            ),  # type: ignore[misc]
            Failure(status=200, body=body),
        )
    server.fail_where(
        lambda request: request.query.get("offset", "0") != "0", Failure(status=200, body=b'{"rows": []}')
    )
    task = world.task(world.collect())
    assert (task["status"], task["reason"]) == (
        "PARTIAL", "shard 0: the source named 31 rows, 30 were fetched",
    )  # fmt: skip


def test_a_count_request_counts_the_whole_range(world: World, serve: Serve) -> None:
    server = serve(rows=100)
    count = {"type": "request", "path": "/count", "value": "count", "query": {"f": "{first}", "l": "{last}"}}
    world.add(selecting({**KEYS, "range": ASKED}, "/select", INTEGERS, total=count))
    world.serve_from(server.base_url)
    assert world.task(world.collect())["total_rows"] == 100
    assert [(each.query["f"], each.query["l"]) for each in server.asked("/count")] == [("0", "99")]
    server.fail_where(lambda request: request.path == "/count", Failure(status=200, body=b'{"count": 101}'))
    task = world.task(world.collect(force=True))
    assert (task["status"], task["reason"]) == ("PARTIAL", "the source named 101 rows, 100 were fetched")


@pytest.mark.parametrize(
    ("shards", "text"),
    [
        ({"by": "entry_point", "entry_point": "no_such.module:f"}, "shards.entry_point no_such.module:f cannot be"),
        ({"by": "entry_point", "entry_point": f"{HERE}:raises"}, "raises raised KeyError: 'customer'"),
        ({**KEYS, "range": {**ASKED, "high": "nothing.there"}}, None),
        ({**KEYS, "range": {**ASKED, "high": "first"}}, "shards.range.high: for last: must be an integer"),
        ({**KEYS, "step": 1, "range": {**ASKED, "high": "`9999999`"}}, "have 100000 shards: raise shards.step"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_dead_and_says_why(
    world: World, serve: Serve, shards: dict[str, Any], text: str | None
) -> None:
    world.add(selecting(shards, "/select", INTEGERS))
    world.serve_from(serve(rows=100).base_url)
    task = world.task(world.collect())
    if text is None:
        assert (task["status"], task["shards_total"]) == ("COMPLETED", 0), "null: there is nothing"
        return
    assert task["status"] == "DEAD"
    assert task["reason"].startswith("planning failed: ")
    assert text in task["reason"]
    assert task["retry_count"] == 0
    assert open_things(world) == 0


def test_an_entry_point_may_ask_to_be_tried_again(world: World, serve: Serve) -> None:
    world.add(selecting({"by": "entry_point", "entry_point": f"{HERE}:busy"}, "/select", INTEGERS))
    world.serve_from(serve(rows=10).base_url)
    task = world.task(world.collect())
    assert task["status"] == "RETRYING"
    assert "raised Busy: come back later" in task["reason"]


def test_merged_ranges_are_cut_as_one_and_shared_out(world: World, serve: Serve) -> None:
    server = serve(rows=200)
    world.serve_from(server.base_url)
    merge = {"type": "range", "start": "first", "end": "last", "column": "id"}
    world.add(selecting({**KEYS, "range": ASKED}, "/select", INTEGERS, merge=merge, target=target("merge")))
    asked = [(0, 49), (40, 99), (100, 149)]
    ids = [world.submit(params={"first": low, "last": high}).task_id for low, high in asked]
    world.claim_and_run()
    tasks = [world.task(task_id) for task_id in ids]
    assert [task["status"] for task in tasks] == ["COMPLETED"] * 3
    assert [shard["first"] for shard in shards_of(world, ids[0])] == [0, 30, 60, 90, 120]
    assert tasks[0]["result"]["own_rows"] == 50
    assert [task["result"]["rows_landed"] for task in tasks[1:]] == [60, 50]
    assert landed(world) == list(range(150))


def test_merged_lists_are_dealt_out_and_shared_out(world: World, serve: Serve) -> None:
    world.serve_from(serve(rows=200).base_url)
    merge = {"type": "list", "param": "ids", "column": "id"}
    shards = {**IDS, "values": ["1"]}
    world.add(selecting(shards, "/select", {"ids": "string"}, merge=merge, target=target("merge")))
    ids = [world.submit(params={"ids": text}).task_id for text in ("1,2,3,4,5", "4,5,6,7,8,9")]
    world.claim_and_run()
    assert [world.task(task_id)["status"] for task_id in ids] == ["COMPLETED"] * 2
    assert shards_of(world, ids[0]) == [{"ids": "1,2,3,4,5,6,7"}, {"ids": "8,9"}]
    assert world.task(ids[0])["result"]["own_rows"] == 5
    assert world.task(ids[1])["result"]["rows_landed"] == 6


def slow(declared: Source, world: World, rate: float) -> None:
    """As if the source's last shards had had so many rows a second."""
    values = {"source": declared.name, "unit": "rows", "rates": [rate] * sharding_rules().history}
    with connect(world.backends.postgres_dsn, application_name="test pace") as db:
        db.execute(
            "INSERT INTO collect.source_pace (source, unit, rates) VALUES (%(source)s, %(unit)s, %(rates)s) "
            "ON CONFLICT (source) DO UPDATE SET rates = excluded.rates",
            values,
        )


def test_shards_follow_what_the_source_did_before(world: World, serve: Serve) -> None:
    server = serve(rows=2_000)
    world.serve_from(server.base_url)
    declared = source(batch_size=100, page_size=20, target=target("append"), limits={"concurrency": 2})
    world.add(declared)
    sizes = []
    for _ in range(3):
        slow(declared, world, 1.9)
        task_id = world.collect(force=True)
        assert world.task(task_id)["status"] == "COMPLETED"
        largest = world.rows("SELECT max(span_size) AS n FROM collect.shard WHERE task_id = %s", task_id)
        sizes.append(largest[0]["n"])
        assert trace_of(world, task_id)["sharding"].startswith(
            f"shard size {sizes[-1]}: 1.9 rows/s over the last 20"
        )
    assert sizes == [60, 40, 20], "at most halved, in whole pages, to what 20 s hold"
    assert {int(each.query["limit"]) for each in server.requests} == {20}, "pages stay as they were"
    db_size = world.rows("SELECT shard_size FROM collect.source_pace")
    assert db_size == [{"shard_size": 20}]


def test_a_task_that_took_its_time_tells_the_pace(world: World, serve: Serve) -> None:
    world.serve_from(serve(rows=400, delay_s=0.3).base_url)
    world.add(source(batch_size=100, page_size=100, limits={"concurrency": 4}))
    world.collect()
    (pace,) = world.rows("SELECT * FROM collect.source_pace WHERE source = 'things'")
    assert (pace["unit"], pace["shard_size"], len(pace["rates"])) == ("rows", 100, 4)
    assert all(50 < rate < 334 for rate in pace["rates"]), "a hundred rows in 0.3 s and the landing"
    # Four shards are enough to go by: the next task's are larger, as far as every request in flight has some.
    task_id = world.collect(force=True)
    assert "rows/s over the last 4 shards, target 20 s" in trace_of(world, task_id)["sharding"]
    assert world.rows("SELECT shard_size FROM collect.source_pace") == [{"shard_size": 200}]
    assert world.task(task_id)["shards_total"] == 4


def test_a_task_that_was_all_overhead_tells_nothing(world: World, serve: Serve) -> None:
    world.serve_from(serve(rows=50).base_url)
    world.add(source())
    world.collect()
    assert world.rows("SELECT rates FROM collect.source_pace") == [{"rates": []}]


def test_a_step_follows_the_pace_in_keys(world: World, serve: Serve) -> None:
    world.serve_from(serve(rows=120, delay_s=0.3).base_url)
    shards = {**KEYS, "min_step": 10, "max_step": 1_000, "range": ASKED}
    world.add(selecting(shards, "/select", INTEGERS, page_size=50, batch_size=50))
    assert world.task(world.collect())["shards_total"] == 4
    (pace,) = world.rows("SELECT * FROM collect.source_pace")
    assert (pace["unit"], pace["shard_size"], len(pace["rates"])) == ("keys", 30, 4)
    world.collect(force=True)
    assert world.rows("SELECT shard_size FROM collect.source_pace") == [{"shard_size": 60}]


def test_the_history_is_bounded_newest_first_and_of_one_unit(
    world: World, serve: Serve, db: Connection
) -> None:
    world.serve_from(serve(rows=3_000).base_url)
    world.add(source(limits={"concurrency": 1}))
    task_id, run_id = start(world)
    plan_groups(world, run_id)
    db.execute(
        "UPDATE collect.shard SET status = 'DONE', attempt = 1, rows_fetched = 100 * (shard_no + 1), "
        "fetch_s = 60, land_s = 40, finished_at = now() + make_interval(secs => shard_no)"
    )
    values = {"task_id": task_id, "attempt": 1, "source": "things", "unit": "rows", "history": 20}
    db.execute(query("execution/record_pace"), values)
    assert world.rows("SELECT rates FROM collect.source_pace")[0]["rates"] == [
        float(n) for n in range(30, 10, -1)
    ]
    db.execute("UPDATE collect.shard SET attempt = 0 WHERE shard_no > 1")
    db.execute(query("execution/record_pace"), values)
    assert world.rows("SELECT rates FROM collect.source_pace")[0]["rates"][:3] == [2.0, 1.0, 30.0]
    assert len(world.rows("SELECT unnest(rates) FROM collect.source_pace")) == 20
    db.execute("UPDATE collect.shard SET units = 5")
    db.execute(query("execution/record_pace"), {**values, "unit": "keys"})
    assert world.rows("SELECT unit, shard_size, rates FROM collect.source_pace") == [
        {"unit": "keys", "shard_size": None, "rates": [0.05, 0.05]}
    ]
