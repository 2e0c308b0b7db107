"""What the stack does before it stops workers: groups are asked to hand back, and no claim begins."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from collect_ops.lanes.rules import lane_rules
from collect_ops.storage import query
from stack import draining

NODE = "node-1"


@pytest.fixture
def connection(postgres_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        yield connection


def open_group(connection: psycopg.Connection, run_id: str, node_id: str) -> None:
    connection.execute(
        "INSERT INTO collect.shard_group (run_id, group_no, lane, label, concurrency, status, node, started_at)"
        " VALUES (%s, 0, 'normal', 'a group', 1, 'OPEN', %s, now())",
        (run_id, node_id),
    )


def end_when_asked(dsn: str, run_id: str) -> None:
    """What a shard group does: it looks whether it shall hand back with each sign of life."""
    deadline = time.monotonic() + 20
    with psycopg.connect(dsn, autocommit=True) as connection:
        while time.monotonic() < deadline:
            ended = connection.execute(
                "UPDATE collect.shard_group SET status = 'CLOSED' WHERE run_id = %s AND hand_back", (run_id,)
            )
            if ended.rowcount:
                return
            time.sleep(0.1)


def test_groups_are_asked_and_waited_for(connection: psycopg.Connection, postgres_dsn: str) -> None:
    open_group(connection, "ours", NODE)
    open_group(connection, "elsewhere", "another")
    said: list[str] = []
    group = threading.Thread(target=end_when_asked, args=(postgres_dsn, "ours"))
    group.start()
    assert draining._drain(connection, [NODE], said.append) == 0
    group.join()
    assert len(said) == 1
    row = connection.execute(
        "SELECT hand_back FROM collect.shard_group WHERE run_id = 'elsewhere'"
    ).fetchone()
    assert row == (False,)


def test_one_that_takes_too_long_is_told(
    connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "HAND_BACK_WITHIN_S", 0.0)
    open_group(connection, "slow", NODE)
    said: list[str] = []
    assert draining._drain(connection, [NODE], said.append) == 1
    assert len(said) == 1


def test_no_claim_begins_meanwhile(connection: psycopg.Connection, postgres_dsn: str) -> None:
    draining._hold_lanes(connection)

    def locked(lane: str) -> bool:
        with psycopg.connect(postgres_dsn) as claim:
            row = claim.execute(query("lanes/lock_lane"), {"lane": lane}).fetchone()
            return bool(row and row[0])

    assert not any(locked(lane) for lane in lane_rules().lanes)
    connection.close()
    assert all(locked(lane) for lane in lane_rules().lanes)


def test_a_claim_that_does_not_end_keeps_no_group_from_being_asked(
    connection: psycopg.Connection, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "_LANES_WITHIN_S", 1.0)
    first, *others = lane_rules().lanes
    open_group(connection, "ours", NODE)
    said: list[str] = []
    group = threading.Thread(target=end_when_asked, args=(postgres_dsn, "ours"))
    group.start()
    with psycopg.connect(postgres_dsn) as claim, psycopg.connect(postgres_dsn) as other_claim:
        claim.execute(query("lanes/lock_lane"), {"lane": first})
        began = time.monotonic()
        assert draining._drain(connection, [NODE], said.append) == 0
        assert time.monotonic() - began < 10
        for lane in others:
            assert other_claim.execute(query("lanes/lock_lane"), {"lane": lane}).fetchone() == (False,)
    group.join()
    told_of_the_lane, *told_of_the_group = [first in line for line in said]
    assert told_of_the_lane
    assert not any(told_of_the_group)  # nothing, when it has ended before anybody looked


def test_claims_that_do_not_end_are_waited_for_once(
    connection: psycopg.Connection, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "_LANES_WITHIN_S", 1.0)
    lanes = list(lane_rules().lanes)
    with psycopg.connect(postgres_dsn) as claims:
        for lane in lanes:
            claims.execute(query("lanes/lock_lane"), {"lane": lane})
        began = time.monotonic()
        assert draining._hold_lanes(connection) == lanes
        assert time.monotonic() - began < 1.9


def test_a_group_whose_row_somebody_holds_is_asked_when_it_is_free(
    connection: psycopg.Connection, postgres_dsn: str
) -> None:
    open_group(connection, "ours", NODE)
    group = threading.Thread(target=end_when_asked, args=(postgres_dsn, "ours"))

    def let_go(holder: psycopg.Connection) -> None:
        time.sleep(draining._GROUPS_WITHIN_S + 1)
        holder.rollback()
        group.start()

    with psycopg.connect(postgres_dsn) as holder:
        holder.execute("SELECT FROM collect.shard_group WHERE run_id = 'ours' FOR UPDATE")
        later = threading.Thread(target=let_go, args=(holder,))
        later.start()
        assert draining._drain(connection, [NODE], lambda _: None) == 0
        later.join()
    group.join()
