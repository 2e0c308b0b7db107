"""A run started by hand with another run's conf must not touch the task: it is not that task's run."""

from __future__ import annotations

from collections.abc import Callable

from collect_ops.execution.finish import finish_run
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer


def test_a_run_by_hand_with_a_live_tasks_conf_moves_nothing(
    world: World, serve: Callable[..., PagedServer]
) -> None:
    world.add(source())
    world.serve_from(serve(rows=120).base_url)
    task_id = world.submit().task_id
    run_id = world.claim().runs[0].run_id
    world.plan(run_id)
    settled = finish_run(
        world.attempts(run_id), "manual__2026-01-01", world.backends, world.rules, actor="somebody"
    )
    task = world.task(task_id)
    assert (settled, task["status"], task["lost_count"]) == ([], "DISPATCHED", 0)
