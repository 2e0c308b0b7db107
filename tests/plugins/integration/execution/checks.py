"""What tests of execution look at, and the targets and runs they start from."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import redis

from collect_ops.broker.publisher import Publisher
from collect_ops.delivery import outbox
from collect_ops.execution.group import GroupResult
from collect_ops.storage import Connection, connect
from tests.plugins.integration.looks import look
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World
from tests.servers.paged import Recorded, row

DISPOSITIONS = ("append", "merge", "replace")


def target(disposition: str, table: str = "things") -> dict[str, Any]:
    """A target with two of the server's five fields as columns; the others go into `_extra`."""
    return {
        "table": table,
        "disposition": disposition,
        "columns": {"id": {"type": "bigint"}, "name": {"type": "text"}},
        **({"key": ["id"]} if disposition == "merge" else {}),
    }


def start(world: World, name: str = "things", **fields: Any) -> tuple[int, str]:
    """Submit and claim; returns the task and its run, which is not planned."""
    admission = world.submit(name, **fields)
    assert admission.duplicate_of is None, admission.sentence()
    claimed = world.claim()
    runs = [
        run.run_id
        for run in claimed.runs
        if any(named["task_id"] == admission.task_id for named in run.conf["tasks"])
    ]
    assert len(runs) == 1, claimed
    return admission.task_id, runs[0]


def plan_groups(world: World, run_id: str) -> list[int]:
    """Plan a run; returns its groups."""
    return [ref.group_no for ref in world.plan(run_id).groups]


async def side_by_side(world: World, run_id: str, groups: list[int], **options: Any) -> list[GroupResult]:
    """Run shard groups at the same time."""
    return list(await asyncio.gather(*(world.group(run_id, number, **options) for number in groups)))


async def while_running(running: Awaitable[list[GroupResult]], act: Callable[[], None]) -> list[GroupResult]:
    """Do something, in a thread, while shard groups run; returns what the groups came to."""
    task = asyncio.ensure_future(running)
    try:
        await asyncio.to_thread(act)
    finally:
        results = await task
    return results


def claim_next(world: World, lane: str = "normal") -> str:
    """The run of what comes back to its lane next, over the retry ladder or at once."""
    found: list[str] = []

    def claimed() -> bool:
        found.extend(run.run_id for run in world.claim(lane).runs)
        return bool(found)

    until(claimed, "something was claimed")
    assert len(found) == 1
    return found[0]


def finish(world: World, run_id: str, task_id: int) -> str:
    """End a run and run the attempts after it until the task has ended; returns how.

    What a killed process has not published is the outbox's to publish.
    """
    world.finish(run_id)
    while world.task(task_id)["status"] in ("QUEUED", "RETRYING"):
        publish_overdue(world)
        world.run(claim_next(world))
    return str(world.task(task_id)["status"])


def publish_overdue(world: World) -> int:
    """What the sweep's outbox does, at once; returns how much the broker confirmed."""
    with (
        connect(world.backends.postgres_dsn, application_name="test outbox") as connection,
        Publisher(world.backends.amqp_url) as publisher,
    ):
        return outbox.run_once(connection, publisher, world.rules, older_than_s=0.0).confirmed


def landed(world: World, table: str = "things") -> list[int]:
    """The ids that landed, each as often as it is there."""
    return sorted(each["id"] for each in world.rows(f"SELECT id FROM landing.{table}"))


def assert_exact(world: World, rows: int, table: str = "things", *, because: object = "") -> None:
    """Every row of the server landed once, with all its fields."""
    found = [
        {**each.pop("_extra"), **each}
        for each in world.rows(f"SELECT id, name, _extra FROM landing.{table} ORDER BY id")
    ]
    counts = Counter(each["id"] for each in found)
    wrong = [number for number in range(rows) if counts.pop(number, 0) != 1]
    assert (wrong, counts) == ([], {}), f"{because}: rows missing or double {wrong}, unknown {counts}"
    assert found == [row(number) for number in range(rows)], because


def open_things(world: World) -> int:
    """Shard groups that hold a slot, and leases."""
    groups = world.rows("SELECT count(*) AS n FROM collect.shard_group WHERE status = 'OPEN'")[0]["n"]
    client = redis.Redis.from_url(world.backends.redis_url)
    leases = len(list(client.scan_iter("collect:lease:*")))
    client.close()
    return int(groups) + leases


def nothing_open(world: World) -> None:
    """Return when nothing is open any more: a killed process's lease ends by itself."""
    until(lambda: open_things(world) == 0, "no shard group is open and no lease is held", deadline_s=5)


def committed(world: World, rows: int) -> None:
    """Return when so many rows have been committed: the next page is asked for while one still lands."""

    def there() -> bool:
        found = world.rows("SELECT coalesce(sum(rows_fetched), 0) AS n FROM collect.shard")
        return bool(found[0]["n"] >= rows)

    until(there, f"{rows} rows are committed")


def connections(dsn: str, application_name: str) -> int:
    """How many connections there are whose application name begins so."""
    return len(
        look(
            dsn,
            "SELECT FROM pg_stat_activity "
            "WHERE datname = current_database() AND starts_with(application_name, %s)",
            application_name,
        )
    )


def freeze(world: World, pid: int | None, *, rows: int) -> None:
    """Stop the process of a group when so many rows are committed and none of its transactions is open.

    One that was stopped inside a transaction would keep its row locks until the server ends its session.
    """
    assert pid is not None
    committed(world, rows)

    def frozen_at_rest() -> bool:
        os.kill(pid, signal.SIGSTOP)
        until(lambda: _is_stopped(pid), "the process has stopped", deadline_s=5)
        if open_transactions(world.backends.postgres_dsn) == 0:
            return True
        os.kill(pid, signal.SIGCONT)
        return False

    until(frozen_at_rest, "the group is between two transactions")


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def open_transactions(dsn: str) -> int:
    """How many sessions are in a transaction or run a statement, this one aside."""
    return len(
        look(
            dsn,
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend' AND state <> 'idle'",
        )
    )


def asides(world: World) -> list[str]:
    """Tables that hold rows aside."""
    return [
        each["tablename"]
        for each in world.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'landing_aside'")
    ]


def offset_of(request: Recorded) -> int:
    """The row that a request asks for first; -1 when it names none."""
    return int(request.query.get("offset", -1))


def asks_for(offset: int) -> Callable[[Recorded], bool]:
    """Matches the request of the page that begins at a row; that of the first row is planning's as well."""
    return lambda request: offset_of(request) == offset


def age(db: Connection, seconds: float) -> None:
    """Everything happened so many seconds earlier, for those who judge by the time without progress."""
    for table in ("task", "shard"):
        db.execute(
            f"UPDATE collect.{table} SET progress_at = progress_at - make_interval(secs => %s)", (seconds,)
        )


def waits_for_a_lock(dsn: str, application_name: str) -> bool:
    """Whether a connection whose application name begins so waits for a lock."""
    found = look(
        dsn,
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND starts_with(application_name, %s)",
        application_name,
    )
    return bool(found)
