"""What PostgreSQL keeps of hosts: the breaker as the pure one decides, and quotas that are never exceeded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from collect_ops.lanes import circuits as pure
from collect_ops.lanes.breaker import Breaker, Outcomes, Permit, Phase
from collect_ops.lanes.circuits import Circuits, EndpointCircuit, EndpointReport, Failure, Probe
from collect_ops.lanes.hosts import (
    Host,
    forget_quiet_endpoints,
    hosts_in_the_way,
    note_probes,
    pause,
    quota_block,
    read_host,
    report_outcomes,
    report_probe,
    return_quota,
    take_permit,
    take_quota,
)
from collect_ops.lanes.rules import HostRule
from collect_ops.storage import Connection, connect, connect_async
from tests.examples import examples

T = TypeVar("T")
NAME = "things_api"
RULE = HostRule(failures=3, window_s=10, min_requests=6, hold_s=5, max_hold_s=60, probes=2, probe_s=4)


def near(circuits: Circuits) -> Circuits:
    """Times to the millisecond: PostgreSQL keeps microseconds."""

    def short(at: float | None) -> float | None:
        return None if at is None else round(at, 3)

    def shortened(breaker: Breaker) -> Breaker:
        window = replace(breaker.window, since=round(breaker.window.since, 3))
        return replace(breaker, until=short(breaker.until), since=short(breaker.since), window=window)

    return Circuits(
        host=shortened(circuits.host),
        answered_at=short(circuits.answered_at),
        endpoints={
            name: EndpointCircuit(breaker=shortened(each.breaker), unanswered_at=short(each.unanswered_at))
            for name, each in circuits.endpoints.items()
        },
    )


def earlier(circuits: Circuits, seconds: float) -> Circuits:
    """The same, so many seconds ago."""

    def back(at: float | None) -> float | None:
        return None if at is None else at - seconds

    def moved(breaker: Breaker) -> Breaker:
        window = replace(breaker.window, since=breaker.window.since - seconds)
        return replace(breaker, until=back(breaker.until), since=back(breaker.since), window=window)

    return Circuits(
        host=moved(circuits.host),
        answered_at=back(circuits.answered_at),
        endpoints={
            name: EndpointCircuit(breaker=moved(each.breaker), unanswered_at=back(each.unanswered_at))
            for name, each in circuits.endpoints.items()
        },
    )


SOURCES = st.sampled_from(["a", "b", "c"])


class RecordMachine(RuleBasedStateMachine):
    """The same events for the records in PostgreSQL and for the pure circuits."""

    db: Connection
    dsn: str

    @initialize()
    def begin(self) -> None:
        self.db.execute("TRUNCATE collect.host, collect.endpoint")
        self.db.execute("INSERT INTO collect.host (connection) VALUES (%s)", (NAME,))
        self.circuits = Circuits()
        self.runner = asyncio.Runner()
        self.connection = self.runner.run(connect_async(self.dsn))
        self.probes: list[tuple[str, Probe]] = []

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def _same(self, host: Host) -> None:
        assert near(host.circuits) == near(self.circuits)
        # What was kept is what was told.
        assert near(read_host(self.db, NAME).circuits) == near(self.circuits)

    @rule(
        source=SOURCES,
        answers=st.integers(0, 8),
        errors=st.integers(0, 4),
        unconnected=st.integers(0, 2),
        silent=st.booleans(),
    )
    def outcomes(self, source: str, answers: int, errors: int, unconnected: int, silent: bool) -> None:
        told = EndpointReport(
            endpoint=Outcomes(
                requests=answers + errors,
                errors=errors,
                in_a_row=errors if silent else 0,
                answered=answers > 0 or not silent,
            ),
            host=Outcomes(
                requests=answers + unconnected,
                errors=unconnected,
                in_a_row=unconnected,
                answered=answers > 0,
            ),
            silent=silent and errors > 0,
        )
        host = self._run(report_outcomes(self.connection, NAME, source, told, "broken", RULE))
        self.circuits = pure.apply_report(self.circuits, source, told, (), host.now, RULE)
        self._same(host)

    @rule(source=SOURCES)
    def permit(self, source: str) -> None:
        host, permit, probe = self._run(take_permit(self.connection, NAME, source, RULE))
        self.circuits, wanted, tried = pure.grant_permit(self.circuits, source, host.now, RULE)
        assert (permit, probe) == (wanted, tried)
        if probe is not None:
            self.probes.append((source, probe))
        self._same(host)

    @rule(data=st.data(), failure=st.sampled_from([None, *Failure]))
    def probe_ends(self, data: st.DataObject, failure: Failure | None) -> None:
        if not self.probes:
            return
        source, probe = self.probes.pop(data.draw(st.integers(0, len(self.probes) - 1)))
        host = self._run(
            report_probe(self.connection, NAME, source, probe, failure=failure, error=None, rule=RULE)
        )
        self.circuits = pure.end_probe(self.circuits, source, probe, failure, (), host.now, RULE)
        self._same(host)

    @rule(source=SOURCES)
    def a_claim_lets_a_task_through(self, source: str) -> None:
        before = read_host(self.db, NAME)
        with self.db.transaction():
            note_probes(self.db, [(NAME, source)], RULE)
        after = read_host(self.db, NAME)
        if not before.may_be_tried(source):
            self._same(after)
            return
        tried = [after.breaker, after.circuits.endpoint(source).breaker]
        assert Phase.OPEN not in {breaker.phase for breaker in tried}
        for breaker in tried:
            assert breaker.until is None or abs(breaker.until - before.now - RULE.probe_s) < 2
        self.circuits = after.circuits

    @rule(seconds=st.sampled_from([1, 4, 6, 11, 70]))
    def time_passes(self, seconds: int) -> None:
        columns = {"held_until", "since", "window_from"}
        for table, other in (("host", "answered_at"), ("endpoint", "unanswered_at")):
            moves = ", ".join(f"{each} = {each} - make_interval(secs => %(s)s)" for each in columns | {other})
            self.db.execute(f"UPDATE collect.{table} SET {moves}", {"s": seconds})  # type: ignore[arg-type]
        self.circuits = earlier(self.circuits, seconds)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self._run(self.connection.close())
            self.runner.close()


def test_the_record_is_the_pure_breaker(db: Connection, postgres_dsn: str) -> None:
    class Machine(RecordMachine):
        pass

    Machine.db, Machine.dsn = db, postgres_dsn
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=examples(6), stateful_step_count=25, deadline=None)
    )


def test_errors_of_many_processes_at_once_are_all_counted(db: Connection, postgres_dsn: str) -> None:
    rule = HostRule(failures=10_000, min_requests=10_000)

    def report_ten() -> None:
        async def report() -> None:
            async with await connect_async(postgres_dsn) as connection:
                for _ in range(10):
                    outcomes = Outcomes(requests=2, errors=1, in_a_row=1)
                    await report_outcomes(
                        connection, NAME, "a", EndpointReport(endpoint=outcomes, host=outcomes), "x", rule
                    )

        asyncio.run(report())

    threads = [threading.Thread(target=report_ten) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    circuits = read_host(db, NAME).circuits
    for breaker in (circuits.host, circuits.endpoint("a").breaker):
        window = breaker.window
        assert window.requests + window.requests_before == 120
        assert window.errors + window.errors_before == 60
        assert breaker.in_a_row == 60


async def test_of_many_that_ask_as_many_are_probes_as_the_rule_says(
    postgres_dsn: str, db: Connection
) -> None:
    db.execute(
        "INSERT INTO collect.host (connection, holds, since, held_until) VALUES (%s, 1, now(), now())",
        (NAME,),
    )

    async def ask() -> Permit:
        async with await connect_async(postgres_dsn) as connection:
            return (await take_permit(connection, NAME, "a", RULE))[1]

    permits = await asyncio.gather(*(ask() for _ in range(8)))
    assert sorted(permits) == [Permit.PROBE] * 2 + [Permit.WAIT] * 6


async def test_a_pause_holds_what_is_claimed_until_it_has_passed(postgres_dsn: str, db: Connection) -> None:
    async with await connect_async(postgres_dsn) as connection:
        await pause(connection, NAME, "answered 429", 60)
        await pause(connection, NAME, "shorter", 1)
        _, permit, _ = await take_permit(connection, NAME, "a", RULE)
    assert permit is Permit.REFUSED
    hosts = hosts_in_the_way(db, [NAME, "other"])
    assert set(hosts) == {NAME}
    assert not hosts[NAME].may_be_tried("a")
    assert "is paused until" in hosts[NAME].reason("a")
    assert "answered 429" in hosts[NAME].reason("a")
    db.execute("UPDATE collect.host SET paused_until = now()")
    assert hosts_in_the_way(db, [NAME]) == {}


async def test_without_a_time_a_pause_ends_with_the_day(postgres_dsn: str, db: Connection) -> None:
    async with await connect_async(postgres_dsn) as connection:
        await pause(connection, NAME, "its quota is used up", None)
    row = db.execute(
        "SELECT paused_until AT TIME ZONE 'UTC' AS at, paused_until > now() AS later, "
        "paused_until <= now() + interval '1 day' AS today FROM collect.host"
    ).fetchone()
    assert row is not None
    assert (row["at"].hour, row["at"].minute, row["later"], row["today"]) == (0, 0, True, True)


@given(quota=st.integers(1, 10**6), granted=st.integers(0, 2 * 10**6), wanted=st.integers(1, 64))
def test_a_block_is_never_more_than_is_left(quota: int, granted: int, wanted: int) -> None:
    block = quota_block(quota, granted, wanted)
    assert 0 <= block <= max(0, quota - granted)
    assert (block == 0) == (granted >= quota)
    assert block <= max(wanted, 200)


async def test_a_quota_is_given_out_exactly_by_many_at_once(postgres_dsn: str, db: Connection) -> None:
    async def drain() -> int:
        total = 0
        async with await connect_async(postgres_dsn) as connection:
            while True:
                block = await take_quota(connection, NAME, 777, 1)
                assert block is not None
                if block.granted == 0:
                    return total
                total += block.granted

    assert sum(await asyncio.gather(*(drain() for _ in range(6)))) == 777


async def test_what_is_left_goes_back_and_a_new_day_begins_anew(postgres_dsn: str, db: Connection) -> None:
    async with await connect_async(postgres_dsn) as connection:
        assert await take_quota(connection, NAME, None, 1) is None, "nobody has declared one"
        block = await take_quota(connection, NAME, 100, 10)
        assert block is not None
        assert (block.granted, block.quota) == (10, 100)
        assert 0 < block.left_s <= 24 * 3600
        await return_quota(connection, NAME, block, 4)
        other = await take_quota(connection, NAME, None, 200)
        assert other is not None
        assert other.granted == 94, "a source that declares none takes part"
        used_up = await take_quota(connection, NAME, 100, 1)
        assert used_up is not None
        assert used_up.granted == 0
        db.execute("UPDATE collect.host_quota SET day = day - 1")
        await return_quota(connection, NAME, replace(block, day="1999-01-01"), 5)
        fresh = await take_quota(connection, NAME, 100, 100)
        assert fresh is not None
        assert fresh.granted == 100
        db.execute("UPDATE collect.host_quota SET day = day + 1")
        ahead = await take_quota(connection, NAME, 100, 1)
        assert ahead is not None
        assert ahead.granted == 0, "a clock that was set back gives nothing out twice"


def test_a_record_that_is_read_is_not_made(db: Connection, postgres_dsn: str) -> None:
    assert read_host(db, NAME).circuits == Circuits()
    with connect(postgres_dsn) as other:
        assert other.execute("SELECT 1 FROM collect.host").fetchall() == []


def test_an_endpoint_is_forgotten_after_a_quiet_day(db: Connection) -> None:
    db.execute(
        "INSERT INTO collect.endpoint (connection, source, changed_at, held_until) VALUES "
        "('c', 'quiet', now() - interval '25 hours', NULL), "
        "('c', 'abandoned', now() - interval '50 hours', now() - interval '25 hours'), "
        "('c', 'held for long', now() - interval '50 hours', now() + interval '1 hour'), "
        "('c', 'tried lately', now() - interval '1 hour', now() - interval '1 hour')"
    )
    assert forget_quiet_endpoints(db) == 2
    left = db.execute("SELECT source FROM collect.endpoint ORDER BY source").fetchall()
    assert [row["source"] for row in left] == ["held for long", "tried lately"]
    assert forget_quiet_endpoints(db) == 0
