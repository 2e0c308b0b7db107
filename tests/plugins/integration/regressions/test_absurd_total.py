"""A total that would make millions of shards is refused with a reason, before it takes the memory of the machine."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from collect_ops.execution.policy import MAX_SHARDS
from tests.plugins.integration.world import World, source
from tests.servers.paged import Failure, PagedServer


@pytest.mark.parametrize("total", [100 * MAX_SHARDS + 1, 2**62, 1e300])
def test_an_absurd_total_ends_the_task(world: World, serve: Callable[..., PagedServer], total: float) -> None:
    server = serve(rows=20)
    body = orjson.dumps({"total": total})
    server.fail_next("/count", Failure(status=200, headers={"Content-Type": "application/json"}, body=body))
    world.add(source(total={"type": "request", "path": "/count", "value": "total"}))
    world.serve_from(server.base_url)
    task = world.task(world.collect())
    assert task["status"] == "DEAD"
    assert "shards" in task["reason"]
    assert task["lost_count"] == 0
