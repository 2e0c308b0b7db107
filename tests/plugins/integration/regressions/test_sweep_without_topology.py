"""Lane rules that the broker's queues do not fit stop the declaring, not the repairing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from collect_ops.broker.topology import TopologyMismatch
from collect_ops.delivery.sweep import sweep
from collect_ops.lanes.runs import RunState
from collect_ops.storage import Connection
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer


def test_a_changed_ttl_does_not_stop_the_repair(
    world: World, serve: Callable[..., PagedServer], db: Connection
) -> None:
    world.add(source())
    world.serve_from(serve(rows=20).base_url)
    task_id = world.submit().task_id
    run_id = world.claim().runs[0].run_id
    world.plan(run_id)
    world.runs.states[run_id] = RunState.ENDED
    db.execute("UPDATE collect.task SET progress_at = progress_at - interval '60 s'")
    lane = world.rules.lanes["normal"].model_copy(update={"message_ttl_s": 60})
    changed = world.rules.model_copy(update={"lanes": {**world.rules.lanes, "normal": lane}})
    with pytest.raises(ExceptionGroup) as raised:
        sweep(world.backends, changed, world.runs, actor="test")
    assert raised.group_contains(TopologyMismatch)
    assert world.task(task_id)["status"] == "QUEUED"
