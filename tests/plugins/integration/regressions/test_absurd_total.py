"""A total that would make millions of shards is refused with a reason, before it takes the memory of the machine.

One that no bigint holds is no number of rows: the source is fetched until it ends, as one that names no total.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from collect_ops.execution.policy import MAX_SHARDS
from tests.plugins.integration.world import World, source
from tests.servers.paged import Failure, PagedServer


@pytest.mark.parametrize("total", [100 * MAX_SHARDS + 1, 10**18 - 1])
def test_an_absurd_total_ends_the_task(world: World, serve: Callable[..., PagedServer], total: float) -> None:
    task = collected(world, serve, total)
    assert task["status"] == "DEAD"
    assert "shards" in task["reason"]
    assert task["lost_count"] == 0


@pytest.mark.parametrize("total", [2**62, 1e300])
def test_what_is_no_number_of_rows_is_no_total(
    world: World, serve: Callable[..., PagedServer], total: float
) -> None:
    task = collected(world, serve, total)
    assert (task["status"], task["shards_total"], task["result"]["rows_landed"]) == ("COMPLETED", 1, 20)


def collected(world: World, serve: Callable[..., PagedServer], total: float) -> dict[str, Any]:
    """The task of a source of 20 rows that names another total."""
    server = serve(rows=20)
    body = orjson.dumps({"total": total})
    server.fail_next("/count", Failure(status=200, headers={"Content-Type": "application/json"}, body=body))
    world.add(source(total={"type": "request", "path": "/count", "value": "total"}))
    world.serve_from(server.base_url)
    return world.task(world.collect())
