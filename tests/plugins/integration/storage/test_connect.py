"""Connections: autocommit, rows as dictionaries, and one clear error when there is none."""

from __future__ import annotations

import pytest

from collect_ops.kernel.errors import Transient
from collect_ops.storage import DatabaseUnavailable, connect, connect_async, query

AWAY = "host=127.0.0.1 port=1 dbname=none password=hunter2"


def test_a_statement_commits_itself_and_a_transaction_as_a_whole(postgres_dsn: str) -> None:
    with connect(postgres_dsn, application_name="one") as one, connect(postgres_dsn) as other:
        one.execute("CREATE TABLE public.seen (n int)")
        one.execute("INSERT INTO public.seen VALUES (1)")
        assert other.execute("SELECT n FROM public.seen").fetchall() == [{"n": 1}]
        with pytest.raises(ZeroDivisionError), one.transaction():  # noqa: PT012 - the block is what rolls back
            one.execute("INSERT INTO public.seen VALUES (2)")
            raise ZeroDivisionError
        assert other.execute("SELECT count(*) AS n FROM public.seen").fetchone() == {"n": 1}
        names = other.execute("SELECT application_name FROM pg_stat_activity WHERE application_name = 'one'")
        assert len(names.fetchall()) == 1
        assert other.execute("SHOW lock_timeout").fetchone() == {"lock_timeout": "1min"}


def test_a_database_that_is_away_is_one_clear_error() -> None:
    with pytest.raises(DatabaseUnavailable, match="did not accept a connection") as refused:
        connect(AWAY)
    assert isinstance(refused.value, Transient)
    assert "hunter2" not in str(refused.value)


async def test_the_same_from_asyncio(postgres_dsn: str) -> None:
    async with await connect_async(postgres_dsn) as connection:
        assert await (await connection.execute("SELECT 1 AS n")).fetchone() == {"n": 1}
    with pytest.raises(DatabaseUnavailable):
        await connect_async(AWAY)


def test_a_statement_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        query("lanes/no_such_statement")
