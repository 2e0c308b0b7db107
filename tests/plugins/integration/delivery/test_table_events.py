"""A table's asset event comes with its rows: for every landing at least once, not too often, the last one always."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from collect_ops.delivery import due, table_events
from collect_ops.delivery.table_events import Sent
from collect_ops.nodes.rules import placement_rules
from collect_ops.orchestrator.errors import AirflowRefused, AirflowUnavailable
from collect_ops.storage import Connection
from tests.plugins.integration.execution.checks import claim_next, plan_groups, side_by_side, target
from tests.plugins.integration.recorded_reports import RecordedReports
from tests.plugins.integration.world import World, source
from tests.servers.paged import Failure, PagedServer

Serve = Callable[..., PagedServer]


@pytest.fixture
def airflow() -> RecordedReports:
    return RecordedReports()


def send(world: World, airflow: RecordedReports, *, interval_s: float = 10.0, limited: bool = False) -> Sent:
    return table_events.run_once(world.backends, lambda: airflow, interval_s=interval_s, limited=limited)


def settle_in_time_for(world: World, airflow: RecordedReports, room: int, *, interval_s: float = 600) -> None:
    """A settle whose time is up after so many events."""
    airflow.room = room
    with suppress(AirflowUnavailable):
        send(world, airflow, interval_s=interval_s, limited=True)
    airflow.room = None


def landed(db: Connection, *tables: str, age_s: float = 9.0) -> None:
    """Rows in tables, in this order."""
    for number, table in enumerate(tables):
        db.execute(
            "INSERT INTO collect.table_event (table_name, task_id, source, rows_landed, landed_at) "
            "VALUES (%s, 1, 'things', 1, now() - make_interval(secs => %s))",
            (table, age_s - number / 1000),
        )


def sent_tables(airflow: RecordedReports) -> list[str]:
    return [name.removeprefix("landing.") for _, name, _, _ in airflow.events]


def are_due(world: World, db: Connection) -> bool:
    return "tables" in due.look(db, world.backends, world.rules, placement_rules())


def waiting(world: World) -> list[int]:
    return [row["task_id"] for row in world.rows("SELECT task_id FROM collect.table_event ORDER BY id")]


@pytest.mark.parametrize("disposition", ["merge", "append", "replace"])
def test_rows_that_landed_have_an_event(
    world: World, serve: Serve, airflow: RecordedReports, disposition: str
) -> None:
    world.add(source(target=target(disposition)))
    world.serve_from(serve(rows=120).base_url)
    task_id = world.collect()
    assert send(world, airflow) == Sent(sent=1)
    ((_, name, uri, extra),) = airflow.events
    assert (name, uri) == ("landing.things", "collect://landing/things")
    assert extra == {"task_ids": [task_id], "tasks": 1, "sources": ["things"], "rows_landed": 120}
    assert waiting(world) == []
    assert send(world, airflow) == Sent()


def test_a_partial_table_has_one_and_a_dead_task_none(
    world: World, serve: Serve, airflow: RecordedReports
) -> None:
    server = serve(rows=400)
    lenient: dict[str, Any] = {"max_failed_shards": 2}
    world.add(source(**lenient), source("others", retries={"http_attempts": 1, "max_retries": 0}))
    world.serve_from(server.base_url)
    server.fail_where(lambda request: request.query.get("offset") == "100", Failure(status=404))
    partial, dead = world.collect(), world.collect("others")
    assert (world.task(partial)["status"], world.task(dead)["status"]) == ("PARTIAL", "DEAD")
    send(world, airflow)
    assert [name for _, name, _, _ in airflow.events] == ["landing.things"]


def test_no_rows_no_event(world: World, serve: Serve, airflow: RecordedReports) -> None:
    world.add(source())
    world.serve_from(serve(rows=0).base_url)
    assert world.task(world.collect())["status"] == "COMPLETED"
    assert send(world, airflow) == Sent()


def test_an_empty_replacement_has_changed_the_table(
    world: World, serve: Serve, airflow: RecordedReports
) -> None:
    server = serve(rows=20)
    world.add(source(target=target("replace")))
    world.serve_from(server.base_url)
    world.collect()
    server.rows = 0
    emptied = world.collect(force=True)
    assert world.task(emptied)["status"] == "COMPLETED"
    assert emptied in waiting(world)


def test_a_replacement_that_came_too_late_has_changed_nothing(world: World, serve: Serve) -> None:
    import asyncio

    world.add(source(target=target("replace")))
    world.serve_from(serve(rows=120).base_url)
    older = world.submit().task_id
    older_run = claim_next(world)
    groups = plan_groups(world, older_run)
    newer = world.submit(force=True).task_id
    world.run(claim_next(world))
    asyncio.run(side_by_side(world, older_run, groups))
    world.finish(older_run)
    assert world.task(older)["status"] == "COMPLETED"
    assert waiting(world) == [newer]


def test_many_landings_are_one_event_and_the_last_is_sent(
    world: World, serve: Serve, airflow: RecordedReports
) -> None:
    world.add(source())
    world.serve_from(serve(rows=20).base_url)
    first = [world.collect(params={"day": str(number)}) for number in range(3)]
    send(world, airflow, interval_s=600)
    late = world.collect(params={"day": "late"})
    assert send(world, airflow, interval_s=600) == Sent(), "too soon"
    assert waiting(world) == [late]
    world.rows("UPDATE collect.table_event_turn SET next_at = now() RETURNING table_name")
    send(world, airflow, interval_s=600)
    assert [sorted(extra["task_ids"]) for _, _, _, extra in airflow.events] == [first, [late]]


def test_what_airflow_does_not_take_is_sent_later(
    world: World, serve: Serve, airflow: RecordedReports
) -> None:
    world.add(source())
    world.serve_from(serve(rows=20).base_url)
    world.collect()
    airflow.away = True
    with pytest.raises(Exception, match="Airflow is away"):
        send(world, airflow, interval_s=0.0)
    assert len(waiting(world)) == 1
    airflow.away = False
    assert send(world, airflow, interval_s=0.0) == Sent(sent=1)


def test_an_asset_that_nobody_knows_yet_waits_and_is_dropped_in_the_end(
    world: World, serve: Serve, airflow: RecordedReports, db: Connection
) -> None:
    world.add(source())
    world.serve_from(serve(rows=20).base_url)
    world.collect()
    airflow.unknown_assets = {"landing.things"}
    assert send(world, airflow) == Sent(unknown=1)
    assert send(world, airflow) == Sent(), "not asked for at every look"
    db.execute("UPDATE collect.table_event_turn SET next_at = now()")
    db.execute("UPDATE collect.table_event SET landed_at = landed_at - interval '2 hours'")
    assert send(world, airflow) == Sent(dropped=1)
    assert waiting(world) == []


def test_many_senders_at_once_send_one_event(world: World, serve: Serve, airflow: RecordedReports) -> None:
    world.add(source(), source("others"))
    world.serve_from(serve(rows=20).base_url)
    world.collect()
    world.collect("others")
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: send(world, airflow), range(8)))
    assert sum(result.sent for result in results) == 2
    assert sorted(name for _, name, _, _ in airflow.events) == ["landing.others", "landing.things"]


def test_the_watcher_leaves_a_fresh_landing_to_its_own_run(
    world: World, serve: Serve, db: Connection
) -> None:
    world.add(source())
    world.serve_from(serve(rows=20).base_url)
    world.collect()
    assert not are_due(world, db)
    db.execute("UPDATE collect.table_event SET landed_at = landed_at - interval '1 minute'")
    assert are_due(world, db)


def test_what_a_settle_had_no_time_for_is_free_for_the_sweep(
    world: World, airflow: RecordedReports, db: Connection
) -> None:
    landed(db, "a", "b", "c", "d", "e")
    settle_in_time_for(world, airflow, 2)
    assert sent_tables(airflow) == ["a", "b"]
    assert are_due(world, db)
    assert send(world, airflow, interval_s=600) == Sent(sent=3)


def test_the_oldest_landing_is_first_whatever_its_table_is_called(
    world: World, airflow: RecordedReports, db: Connection
) -> None:
    """Busy tables at the front of the alphabet: settles alone send every table's event."""
    landed(db, "zebra")
    for _ in range(6):
        landed(db, "a", "b", "c", age_s=1)
        settle_in_time_for(world, airflow, 2, interval_s=0)
    assert sent_tables(airflow)[0] == "zebra"
    assert set(sent_tables(airflow)) == {"zebra", "a", "b", "c"}


def test_what_takes_longer_than_a_settle_has_is_left_to_the_sweep(
    world: World, airflow: RecordedReports, db: Connection
) -> None:
    landed(db, "slow", "quick")
    airflow.failing["landing.slow"] = AirflowUnavailable("no answer in time")
    for _ in range(2):
        with suppress(AirflowUnavailable):
            send(world, airflow, interval_s=600, limited=True)
    assert sent_tables(airflow) == ["quick"], "the first settle failed, the second left it alone"
    assert are_due(world, db)
    airflow.failing.clear()
    assert send(world, airflow, interval_s=0) == Sent(sent=1)
    landed(db, "slow")
    assert send(world, airflow, interval_s=600, limited=True) == Sent(sent=1), "settles send it again"


def test_a_table_that_always_fails_keeps_no_other_waiting(
    world: World, airflow: RecordedReports, db: Connection
) -> None:
    landed(db, "bad", "worse", "good")
    for table in ("bad", "worse"):
        airflow.failing[f"landing.{table}"] = AirflowUnavailable("no answer in time")
    for _ in range(4):
        with suppress(AirflowUnavailable):
            send(world, airflow, interval_s=0)
    assert sent_tables(airflow) == ["good"]
    assert [name.removeprefix("landing.") for name in airflow.asked] == [
        "bad", "worse", "good", "bad", "worse",
    ]  # fmt: skip


def test_what_airflow_refuses_is_put_off_and_dropped_after_a_day(
    world: World, airflow: RecordedReports, db: Connection
) -> None:
    landed(db, "bad", "good")
    airflow.failing["landing.bad"] = AirflowRefused("take an event", 422, "no")
    with pytest.raises(ExceptionGroup):
        send(world, airflow)
    assert sent_tables(airflow) == ["good"]
    assert send(world, airflow) == Sent(), "not asked for at every look"
    db.execute("UPDATE collect.table_event_turn SET next_at = now()")
    db.execute("UPDATE collect.table_event SET landed_at = landed_at - interval '25 hours'")
    assert send(world, airflow) == Sent(dropped=1)
    assert waiting(world) == []
