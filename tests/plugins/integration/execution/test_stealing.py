"""Work stealing: a group that has nothing left takes over what others have not started, and nothing goes wrong."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from collect_ops.collectors.endpoint import Endpoint
from collect_ops.execution.group import GroupResult, run_group
from collect_ops.execution.rules import ShardingRules
from collect_ops.execution.stealing import Stealing
from collect_ops.storage import Connection, connect, connect_async, query
from tests.examples import examples
from tests.plugins.integration.execution.checks import (
    DISPOSITIONS,
    assert_exact,
    finish,
    freeze,
    nothing_open,
    offset_of,
    open_things,
    plan_groups,
    start,
    target,
    waits_for_a_lock,
)
from tests.plugins.integration.execution.killed_group import start as start_process
from tests.plugins.integration.execution.killed_group import work_of
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

Serve = Callable[..., PagedServer]


def two_groups(world: World, disposition: str = "append", **fields: Any) -> tuple[int, str, int, int]:
    """A task in two groups of a worker each."""
    world.add(source(target=target(disposition), limits={"concurrency": 2}, **fields))
    task_id, run_id = start(world)
    first, second = plan_groups(world, run_id)
    return task_id, run_id, first, second


def owners(world: World) -> dict[int, int]:
    """How many shards each group has now."""
    found = world.rows("SELECT group_no, count(*) AS n FROM collect.shard GROUP BY group_no")
    return {row["group_no"]: row["n"] for row in found}


async def beside_slow(world: World, run_id: str, fast: int, slow: int, slow_url: str) -> list[GroupResult]:
    """Both groups at once, the slow one against a server of its own."""
    endpoint = Endpoint(base_url=slow_url, allow_private_networks=True)
    crawling = run_group(
        run_id, slow, world.backends, world.rules, lambda _: endpoint, node="slow", actor="test"
    )
    return list(await asyncio.gather(world.group(run_id, fast), crawling))


@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_a_slow_group_does_not_hold_up_the_task(world: World, serve: Serve, disposition: str) -> None:
    fast_server, slow_server = serve(rows=2_000), serve(rows=2_000, delay_s=0.5)
    world.serve_from(fast_server.base_url)
    task_id, run_id, fast, slow = two_groups(world, disposition)
    quick, crawling = asyncio.run(beside_slow(world, run_id, fast, slow, slow_server.base_url))
    task = world.task(task_id)
    assert task["status"] == "COMPLETED"
    assert (task["attempt"], task["lost_count"], task["result"]["done"]) == (1, 0, 20)
    assert_exact(world, 2_000)
    assert (quick.failed, quick.fenced, crawling.failed, crawling.fenced) == (0, 0, 0, 0)
    assert quick.done + crawling.done == 20
    assert quick.done > 15, "the fast one took over most of the other's ten"
    assert quick.stolen >= quick.done - 10
    assert crawling.handed_over == quick.stolen
    assert [quick.skipped, crawling.skipped] == [None, None]
    assert owners(world) == {fast: quick.done, slow: crawling.done}
    assert open_things(world) == 0
    world.finish(run_id)


def test_a_group_that_never_starts_is_emptied_and_ends_as_done(world: World, serve: Serve) -> None:
    world.serve_from(serve(rows=1_000).base_url)
    task_id, run_id, first, second = two_groups(world)
    result = asyncio.run(world.group(run_id, first))
    assert (result.done, result.stolen) == (10, 5)
    assert world.task(task_id)["status"] == "COMPLETED", "without the other, and without the run's end"
    late = asyncio.run(world.group(run_id, second))
    assert (late.skipped, late.done, late.failed, late.fenced) == (None, 0, 0, 0)
    assert open_things(world) == 0
    assert_exact(world, 1_000)


def test_a_frozen_group_keeps_what_it_has_in_hand(world: World, serve: Serve) -> None:
    server = serve(rows=1_000)
    world.serve_from(server.base_url)
    task_id, run_id, first, second = two_groups(world)
    held = server.hold_where(lambda request: offset_of(request) == 550)
    process = start_process(work_of(world, run_id, second))
    assert process.pid is not None
    try:
        held.wait()
        freeze(world, process.pid, rows=50)
        held.release()
        result = asyncio.run(world.group(run_id, first))
        assert (result.done, result.stolen) == (9, 4)
        assert world.task(task_id)["status"] == "RUNNING", "one shard is still the frozen one's"
        os.kill(process.pid, signal.SIGCONT)
        process.join(30)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join(20)
    task = world.task(task_id)
    assert (task["status"], task["attempt"], task["lost_count"]) == ("COMPLETED", 1, 0)
    assert_exact(world, 1_000)
    nothing_open(world)


def test_a_thief_that_dies_leaves_its_shards_to_the_next_attempt(world: World, serve: Serve) -> None:
    server = serve(rows=1_000)
    world.serve_from(server.base_url)
    task_id, run_id, first, second = two_groups(world)
    held = server.hold_where(lambda request: offset_of(request) >= 700)
    process = start_process(work_of(world, run_id, first))
    try:
        held.wait()
        assert owners(world) == {first: 8, second: 2}
    finally:
        process.kill()
        process.join(20)
        held.release()
    until(lambda: owners(world)[first] == 8, "they are the dead one's")
    assert finish(world, run_id, task_id) == "COMPLETED"
    task = world.task(task_id)
    assert (task["retry_count"], task["lost_count"], task["attempt"]) == (0, 1, 2)
    assert task["result"]["rows_fetched"] == 1_000
    assert_exact(world, 1_000)
    nothing_open(world)


def test_a_group_can_be_told_not_to(world: World, serve: Serve) -> None:
    world.serve_from(serve(rows=400).base_url)
    _, run_id, first, second = two_groups(world)
    result = asyncio.run(world.group(run_id, first, sharding=ShardingRules(steal=False)))
    assert (result.done, result.stolen) == (2, 0)
    assert asyncio.run(world.group(run_id, second)).done == 2


def steal(db: Connection, run_id: str, group_no: int, *unfit: int) -> list[tuple[int, int]]:
    values = {"run_id": run_id, "group_no": group_no, "unfit": list(unfit)}
    return [
        (row["shard_no"], row["stolen_from"]) for row in db.execute(query("execution/steal_shards"), values)
    ]


def take(db: Connection, task_id: int, shard_no: int, run_id: str, group_no: int) -> bool:
    values = {"task_id": task_id, "attempt": 1, "shard_no": shard_no, "run_id": run_id, "group_no": group_no}
    return db.execute(query("execution/take_shard"), values).fetchone() is not None


@pytest.fixture
def planned(world: World, serve: Serve) -> tuple[int, str]:
    """A task of ten shards in two groups of five; nothing runs."""
    world.serve_from(serve(rows=1_000).base_url)
    task_id, run_id, first, second = two_groups(world)
    assert (first, second) == (0, 1)
    return task_id, run_id


def test_half_of_what_is_unstarted_from_its_end(planned: tuple[int, str], db: Connection) -> None:
    task_id, run_id = planned
    assert take(db, task_id, 5, run_id, 1)
    assert steal(db, run_id, 0) == [(8, 1), (9, 1)]
    assert steal(db, run_id, 0) == [(7, 1)]
    assert steal(db, run_id, 0) == [(6, 1)]
    assert steal(db, run_id, 0) == [], "what is in hand stays"
    assert not take(db, task_id, 9, run_id, 1)
    assert take(db, task_id, 9, run_id, 0)


def test_what_is_not_stolen(planned: tuple[int, str], db: Connection) -> None:
    task_id, run_id = planned
    assert steal(db, run_id, 0, task_id) == [], "of a task that the group cannot run"
    assert steal(db, "another-run", 0) == []
    assert steal(db, run_id, 7) == [], "for a group that is not there"
    db.execute("UPDATE collect.shard_group SET status = 'CLOSED' WHERE group_no = 1")
    assert steal(db, run_id, 0) == [], "of a closed group"
    db.execute("UPDATE collect.shard_group SET status = CASE group_no WHEN 0 THEN 'CLOSED' ELSE 'OPEN' END")
    assert steal(db, run_id, 0) == [], "for a closed group"
    db.execute("UPDATE collect.shard_group SET status = 'OPEN'")
    with db.transaction(force_rollback=True):
        db.execute("UPDATE collect.task SET status = 'CANCELLED'")
        assert steal(db, run_id, 0) == [], "of a task that is not under way"
    assert len(steal(db, run_id, 0)) == 3


def test_two_thieves_get_different_shards(planned: tuple[int, str], world: World, db: Connection) -> None:
    _, run_id = planned
    db.execute(
        "INSERT INTO collect.shard_group (run_id, group_no, lane, label, concurrency) "
        "VALUES (%s, 2, 'normal', 'third', 1)",
        (run_id,),
    )
    with connect(world.backends.postgres_dsn, application_name="test thief") as other, other.transaction():
        one = steal(other, run_id, 2)
        two = steal(db, run_id, 1)
    assert [victim for _, victim in one + two] == [0] * 5
    assert len(dict(one + two)) == 5


@pytest.mark.parametrize("thief_first", [True, False])
def test_taking_and_stealing_at_the_same_moment(
    planned: tuple[int, str], world: World, db: Connection, thief_first: bool
) -> None:
    """Whoever locks the shard first has it; who takes waits for a thief, a thief waits for nobody."""
    task_id, run_id = planned
    with (
        connect(world.backends.postgres_dsn, application_name="test other") as other,
        ThreadPoolExecutor(1) as pool,
    ):
        if not thief_first:
            with other.transaction():
                assert take(other, task_id, 9, run_id, 1)
                assert [number for number, _ in steal(db, run_id, 0)] == [6, 7, 8]
            return
        with db.transaction():
            assert [number for number, _ in steal(db, run_id, 0)] == [7, 8, 9]
            taking = pool.submit(take, other, task_id, 9, run_id, 1)
            until(lambda: waits_for_a_lock(world.backends.postgres_dsn, "test other"), "who takes it waits")
        assert taking.result(20) is False


async def test_a_steal_whose_answer_was_lost_is_looked_up(planned: tuple[int, str], world: World) -> None:
    _, run_id = planned
    stealing = Stealing(run_id, 0, enabled=True)
    async with await connect_async(world.backends.postgres_dsn) as connection:
        await connection.execute("UPDATE collect.shard SET status = 'DONE' WHERE group_no = 0")
        first = await stealing.steal(connection, ())
        again = await stealing.steal(connection, ())
        assert [row["shard_no"] for row in again] == [row["shard_no"] for row in first] == [7, 8, 9]
        stealing.settled()
        assert [row["shard_no"] for row in await stealing.steal(connection, ())] == [6]


class Thieves(RuleBasedStateMachine):
    """Groups that take, finish and steal in any order, beside a model of whose what is."""

    db: Connection
    task_id: int
    run_id: str

    @initialize(sizes=st.lists(st.integers(0, 7), min_size=2, max_size=5))
    def deal(self, sizes: list[int]) -> None:
        self.groups = len(sizes)
        self.owner = [group for group, size in enumerate(sizes) for _ in range(size)]
        self.status = ["PENDING"] * len(self.owner)
        self.db.execute("DELETE FROM collect.shard")
        self.db.execute("DELETE FROM collect.shard_group")
        self.db.execute(
            "INSERT INTO collect.shard_group (run_id, group_no, lane, label, concurrency) "
            "SELECT %s, g, 'normal', 'g', 1 FROM generate_series(0, %s) AS g",
            (self.run_id, self.groups - 1),
        )
        for number, group in enumerate(self.owner):
            self.db.execute(
                "INSERT INTO collect.shard (task_id, shard_no, run_id, group_no) VALUES (%s, %s, %s, %s)",
                (self.task_id, number, self.run_id, group),
            )

    def unstarted(self, group: int) -> list[int]:
        return [n for n, own in enumerate(self.owner) if own == group and self.status[n] == "PENDING"]

    @rule(group=st.integers(0, 4), data=st.data())
    def take_one(self, group: int, data: st.DataObject) -> None:
        if not self.owner:
            return
        number = data.draw(st.integers(0, len(self.owner) - 1))
        taken = take(self.db, self.task_id, number, self.run_id, group)
        assert taken == (self.owner[number] == group and self.status[number] != "DONE")
        if taken:
            self.status[number] = "RUNNING"

    @rule(number=st.integers(0, 40))
    def finish_one(self, number: int) -> None:
        if number < len(self.owner) and self.status[number] == "RUNNING":
            self.db.execute("UPDATE collect.shard SET status = 'DONE' WHERE shard_no = %s", (number,))
            self.status[number] = "DONE"

    @rule(group=st.integers(0, 4))
    def steal_a_block(self, group: int) -> None:
        stolen = steal(self.db, self.run_id, group)
        victims = {n: len(self.unstarted(n)) for n in range(self.groups) if n != group}
        most = max(victims.values(), default=0) if group < self.groups else 0
        assert len(stolen) == (most + 1) // 2
        if stolen:
            victim = min(n for n, many in victims.items() if many == most)
            assert {origin for _, origin in stolen} == {victim}
            assert [number for number, _ in stolen] == self.unstarted(victim)[-len(stolen) :]
            for number, _ in stolen:
                self.owner[number] = group

    @invariant()
    def every_shard_has_the_owner_it_should_have(self) -> None:
        found = self.db.execute(
            "SELECT shard_no, group_no, status FROM collect.shard ORDER BY shard_no"
        ).fetchall()
        assert [(row["group_no"], row["status"]) for row in found] == list(
            zip(self.owner, self.status, strict=True)
        )


def test_thieves_in_any_order(planned: tuple[int, str], db: Connection) -> None:
    class Bound(Thieves):
        pass

    Bound.db, (Bound.task_id, Bound.run_id) = db, planned
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=examples(15),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
