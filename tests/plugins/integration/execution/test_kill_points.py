"""kill -9 of a shard group at any moment: the next attempt makes it exact, and nothing is left behind."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import pytest

from collect_ops.sources.file_defaults import with_file_defaults
from collect_ops.storage import connect, sql
from tests.plugins.integration.execution.checks import (
    DISPOSITIONS,
    assert_exact,
    claim_next,
    connections,
    finish,
    nothing_open,
    offset_of,
    plan_groups,
    start,
    target,
)
from tests.plugins.integration.execution.killed_group import start as start_process
from tests.plugins.integration.execution.killed_group import work_of
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

ROWS, PAGE = 240, 20
#: Three times as many as there are dispositions; `make chaos` kills more often.
KILLS = int(os.environ.get("KILL_POINTS", "9"))


def kill(processes: list[BaseProcess]) -> list[int | None]:
    for process in processes:
        process.kill()
    for process in processes:
        process.join(20)
    return [process.exitcode for process in processes]


def empty(world: World, table: str) -> None:
    """Drop what an earlier round has landed."""
    with connect(world.backends.postgres_dsn, application_name="test") as connection:
        connection.execute(sql.SQL("DROP TABLE IF EXISTS landing.{}").format(sql.Identifier(table)))


@pytest.mark.timeout(3600)
def test_any_kill_point_leaves_exact_rows(world: World, serve: Callable[..., PagedServer]) -> None:
    """Each round: sharded or one stream, a kill after a random request and a random moment more."""
    server = serve(rows=ROWS)
    world.serve_from(server.base_url)
    for disposition in DISPOSITIONS:
        for kind, batch_size in (("sharded", 60), ("streamed", ROWS)):
            name = f"{disposition}_{kind}"
            fields = {"batch_size": batch_size, "page_size": PAGE, "limits": {"concurrency": 2}}
            # Pages that land again after a kill are no pages that come again.
            world.add(with_file_defaults(source(name, target=target(disposition, name), **fields)))
    interrupted, dsn = 0, world.backends.postgres_dsn
    for seed in range(KILLS):
        chance = random.Random(seed)
        name = f"{DISPOSITIONS[seed % 3]}_{chance.choice(('sharded', 'streamed'))}"
        empty(world, name)
        task_id, run_id = start(world, name, params={"day": f"round {seed}"}, force=True)
        groups = plan_groups(world, run_id)
        server.requests.clear()
        requests = chance.randint(0, ROWS // PAGE)
        processes = [start_process(work_of(world, run_id, number)) for number in groups]
        try:
            until(
                lambda: len(server.requests) >= requests or not any(p.is_alive() for p in processes),  # noqa: B023
                "the request after which to kill",
            )
            processes[0].join(chance.uniform(0, 0.03))
        finally:
            codes = kill(processes)
        because = f"seed {seed}: {name} killed after {requests} requests, exit codes {codes}"
        interrupted += any(code != 0 for code in codes)
        # What had been told to commit commits without its process.
        until(lambda: connections(dsn, f"collect-ops {run_id}/") == 0, "its connections have ended")  # noqa: B023
        landed = world.rows(
            "SELECT coalesce(sum(rows_fetched), 0)::int AS n FROM collect.shard WHERE task_id = %s", task_id
        )[0]["n"]
        server.requests.clear()
        assert finish(world, run_id, task_id) == "COMPLETED", because
        task = world.task(task_id)
        assert task["retry_count"] == 0, because
        assert task["lost_count"] == task["attempt"] - 1, because
        assert task["result"]["rows_fetched"] == ROWS, because
        assert len({offset_of(each) for each in server.requests}) * PAGE == ROWS - landed, because
        assert_exact(world, ROWS, name, because=because)
        nothing_open(world)
    assert interrupted >= KILLS // 2, "most kills came before the group's end"


def test_kill_after_kill_counts_as_losses_and_waits_longer(
    world: World, serve: Callable[..., PagedServer]
) -> None:
    server = serve(rows=ROWS)
    world.serve_from(server.base_url)
    world.add(source(target=target("append"), batch_size=ROWS, page_size=PAGE))
    task_id, run_id = start(world)
    for losses in (1, 2):
        groups = plan_groups(world, run_id)
        server.requests.clear()
        held = server.hold_where(lambda _request: True)
        processes = [start_process(work_of(world, run_id, number)) for number in groups]
        try:
            held.wait()
        finally:
            assert kill(processes) == [-9]
            held.release()
        world.finish(run_id)
        task = world.task(task_id)
        assert (task["status"], task["lost_count"], task["retry_count"]) == ("QUEUED", losses, 0)
        assert (task["due_at"] is None) == (losses == 1)
        run_id = claim_next(world)
    world.run(run_id)
    assert world.task(task_id)["status"] == "COMPLETED"
    assert_exact(world, ROWS)
    nothing_open(world)
