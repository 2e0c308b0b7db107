"""Trace rows: masked, storable whatever a server sent, in order."""

from __future__ import annotations

import pytest

from collect_ops.journal.trace import Stage, TraceRow, describe_failure, write_traces, write_traces_async
from collect_ops.kernel.errors import CollectOpsError, Permanent, Transient
from collect_ops.storage import Connection, connect_async, query
from tests.plugins.integration.world import World, source


@pytest.fixture
def task_id(world: World, db: Connection) -> int:
    world.add(source())
    admitted = world.submit().task_id
    db.execute("DELETE FROM collect.trace")
    return admitted


def traces(db: Connection, task_id: int, stage: str | None = None) -> list[dict[str, object]]:
    return db.execute(query("journal/select_trace"), {"task_id": task_id, "stage": stage}).fetchall()


def test_admission_leaves_a_row_a_stage(world: World, db: Connection) -> None:
    world.add(source())
    admitted = world.submit(params={"day": "monday"}).task_id
    admit, publish = traces(db, admitted)
    assert (admit["stage"], publish["stage"]) == ("admit", "publish")
    assert publish["response"] == {"generation": 1, "confirmed": True}
    world.claim()
    assert [row["attempt"] for row in traces(db, admitted, "claim")] == [1]


def test_rows_come_back_in_order_and_by_stage(db: Connection, task_id: int) -> None:
    stages = [Stage.PLAN, Stage.FETCH, Stage.LAND, Stage.FETCH]
    write_traces(
        db,
        [
            TraceRow(
                task_id=task_id, stage=stage, attempt=1, duration_s=0.5, shard_no=number, rows=10, bytes=99
            )
            for number, stage in enumerate(stages)
        ],
    )
    write_traces(db, [])
    assert [row["stage"] for row in traces(db, task_id)] == stages
    assert [row["shard_no"] for row in traces(db, task_id, "fetch")] == [1, 3]


async def test_the_same_from_asyncio(world: World, db: Connection, task_id: int) -> None:
    async with await connect_async(world.backends.postgres_dsn) as connection:
        await write_traces_async(connection, [])
        await write_traces_async(
            connection, [TraceRow(task_id=task_id, stage=Stage.LAND, attempt=2, duration_s=1.5)]
        )
    (row,) = traces(db, task_id)
    assert (row["stage"], row["attempt"], row["duration_s"]) == ("land", 2, 1.5)


def test_secrets_are_masked_and_what_jsonb_refuses_is_written_out(db: Connection, task_id: int) -> None:
    request = {
        "url": "https://me:hunter2@example.com/x?api_key=hunter2&page=1",
        "headers": {"Authorization": "Bearer hunter2", "Accept": "application/json"},
    }
    response = {"body": "a\x00b \ud800", "nul\x00name": ["\udfff", {"deep": "\x00"}], "status": 200}
    write_traces(
        db,
        [
            TraceRow(
                task_id=task_id,
                stage=Stage.FETCH,
                attempt=1,
                duration_s=0,
                request=request,
                response=response,
            )
        ],
    )
    (row,) = traces(db, task_id)
    assert "hunter2" not in str(row)
    assert row["response"] == {
        "body": "a\\x00b \\ud800",
        "nul\\x00name": ["\\udfff", {"deep": "\\x00"}],
        "status": 200,
    }


def test_an_error_keeps_class_message_and_stack(db: Connection, task_id: int) -> None:
    try:
        raise LookupError("password=hunter2 \x00")  # noqa: TRY301 - for its stack
    except LookupError as raised:
        error = describe_failure(raised)
    write_traces(db, [TraceRow(task_id=task_id, stage=Stage.PLAN, attempt=1, duration_s=0, error=error)])
    (row,) = traces(db, task_id)
    assert row["error"] == error
    assert error["class"] == "LookupError"
    assert "hunter2" not in str(error)
    assert "raise LookupError" in error["stack"]


class Passing(CollectOpsError, Transient):
    """Goes away."""

    retry_after_s = 12.0


class Lasting(CollectOpsError, Permanent):
    """Stays."""


@pytest.mark.parametrize(
    ("error", "transient", "retry_after_s"),
    [(Passing("no"), True, 12.0), (Lasting("no"), False, None), (ValueError("no"), True, None)],
)
def test_a_failure_says_whether_to_try_again(
    error: Exception, transient: bool, retry_after_s: float | None
) -> None:
    described = describe_failure(error)
    assert (described["transient"], described["retry_after_s"]) == (transient, retry_after_s)
