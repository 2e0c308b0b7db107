"""A holder that is frozen past its lease: another takes its shards, and what it lands when it wakes is refused."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from collect_ops.execution.settle import settle
from tests.plugins.integration.execution.checks import (
    assert_exact,
    finish,
    freeze,
    nothing_open,
    plan_groups,
    start,
    target,
)
from tests.plugins.integration.execution.killed_group import start as start_process
from tests.plugins.integration.execution.killed_group import work_of
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer


def test_it_wakes_and_lands_nothing_more(world: World, serve: Callable[..., PagedServer]) -> None:
    server = serve(rows=200)
    world.serve_from(server.base_url)
    world.add(source(target=target("append"), batch_size=200, page_size=20, limits={"concurrency": 1}))
    task_id, run_id = start(world)
    (group,) = plan_groups(world, run_id)
    held = server.hold_where(lambda request: request.query.get("offset") == "100")
    process = start_process(work_of(world, run_id, group))
    assert process.pid is not None
    try:
        held.wait()
        freeze(world, process.pid, rows=100)
        held.release()
        # What the repair pass does when a run has made no progress for too long.
        settled = settle(task_id, 1, world.backends, world.rules, actor="repair", run_over=True)
        assert settled is not None
        assert finish(world, run_id, task_id) == "COMPLETED"
        before = world.rows("SELECT * FROM collect.shard WHERE task_id = %s", task_id)
        os.kill(process.pid, signal.SIGCONT)
        process.join(20)
        assert process.exitcode == 0, "it ends by itself, fenced off"
    finally:
        process.kill()
        process.join(20)
    assert world.rows("SELECT * FROM collect.shard WHERE task_id = %s", task_id) == before
    assert_exact(world, 200)
    until(lambda: nothing_open(world) is None, "nothing is left open")
