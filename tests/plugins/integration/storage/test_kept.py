"""Connections that are used again: only those that are open and idle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from collect_ops.storage import Connection, connect
from collect_ops.storage.kept import KeptConnections
from collect_ops.storage.postgres import is_usable


@pytest.fixture
def kept(postgres_dsn: str) -> Iterator[KeptConnections]:
    with KeptConnections(postgres_dsn, application_name="kept") as found:
        yield found


def pid_of(connection: Connection) -> int:
    return connection.info.backend_pid


def test_one_after_the_other_uses_the_same(kept: KeptConnections) -> None:
    with kept.use() as first:
        pid = pid_of(first)
    with kept.use() as second:
        assert pid_of(second) == pid


def test_uses_at_once_have_one_each(kept: KeptConnections) -> None:
    together = Barrier(4)

    def use(_: int) -> int:
        with kept.use() as connection:
            together.wait(10)
            return pid_of(connection)

    with ThreadPoolExecutor(4) as pool:
        first = set(pool.map(use, range(4)))
        assert len(first) == 4
        assert set(pool.map(use, range(4))) == first


def test_one_that_the_server_ended_is_replaced(kept: KeptConnections, postgres_dsn: str) -> None:
    with kept.use() as first:
        pid = pid_of(first)
    with connect(postgres_dsn) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    with kept.use() as second:
        assert second.execute("SELECT 1 AS n").fetchone() == {"n": 1}
        assert pid_of(second) != pid


def test_neither_an_error_nor_an_open_transaction_is_kept(kept: KeptConnections, postgres_dsn: str) -> None:
    with pytest.raises(ZeroDivisionError), kept.use() as failed:
        raise ZeroDivisionError
    with kept.use() as careless:
        careless.execute("BEGIN")
        careless.execute("LOCK TABLE collect.task IN ACCESS EXCLUSIVE MODE")
    assert failed.closed
    assert careless.closed
    with connect(postgres_dsn) as other:
        other.execute("SET lock_timeout = '5s'")
        other.execute("SELECT count(*) FROM collect.task")


def test_what_is_in_use_at_the_end_is_closed_after_its_use(postgres_dsn: str) -> None:
    kept = KeptConnections(postgres_dsn, application_name="kept")
    with kept.use() as connection:
        kept.close()
        assert connection.execute("SELECT 1 AS n").fetchone() == {"n": 1}
    assert connection.closed


def test_a_process_with_many_open_files_uses_them_all_the_same(postgres_dsn: str) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    many = [os.dup(null) for _ in range(1100)]
    try:
        with connect(postgres_dsn) as connection:
            assert connection.fileno() > 1024
            assert is_usable(connection)
    finally:
        for descriptor in (null, *many):
            os.close(descriptor)
