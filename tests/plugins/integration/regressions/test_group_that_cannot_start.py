"""A shard group that cannot start for a reason of its own (its connection was deleted) fails its tasks with that
reason; it is not a lost attempt, which would run again at once, ten times, and never say why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from collect_ops.collectors.endpoint import Endpoint
from collect_ops.execution.group import run_group
from collect_ops.kernel.errors import Fault, ValidationFailed
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer


def no_endpoint(connection_id: str) -> Endpoint:
    raise ValidationFailed("connection", (Fault(field=connection_id, value=None, problem="is not defined"),))


def test_a_connection_that_was_deleted_after_planning(
    world: World, serve: Callable[..., PagedServer]
) -> None:
    world.add(source())
    world.serve_from(serve(rows=120).base_url)
    task_id = world.submit().task_id
    run_id = world.claim().runs[0].run_id
    groups = world.plan(run_id).groups
    for group in groups:
        asyncio.run(
            run_group(
                run_id, group.group_no, world.backends, world.rules, no_endpoint, node="test", actor="test"
            )
        )
    world.finish(run_id)
    task = world.task(task_id)
    assert (task["status"], task["lost_count"]) == ("DEAD", 0)
    assert "is not defined" in task["reason"]
