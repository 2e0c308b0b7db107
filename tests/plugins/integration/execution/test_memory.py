"""A shard group's memory is bounded by page size and concurrency, not by how much the task brings."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.plugins.integration.execution.checks import plan_groups, start, target
from tests.plugins.integration.execution.killed_group import peak_kb, work_of
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

PAGE = 1_000
ALLOWED_GROWTH_KB = 12 * 1024


@pytest.mark.timeout(200)
@pytest.mark.parametrize("disposition", ["append", "merge"])
def test_ten_times_the_pages_need_no_more_memory(
    world: World, serve: Callable[..., PagedServer], disposition: str
) -> None:
    server = serve(rows=0)
    world.serve_from(server.base_url)
    peaks = []
    for pages in (10, 100):
        server.rows = pages * PAGE
        name = f"pages_{pages}"
        fields = {"batch_size": pages * PAGE, "page_size": PAGE}
        world.add(source(name, target=target(disposition, name), **fields))
        task_id, run_id = start(world, name)
        (group,) = plan_groups(world, run_id)
        peaks.append(peak_kb(work_of(world, run_id, group)))
        assert world.task(task_id)["result"]["rows_landed"] == pages * PAGE
    few, many = peaks
    assert many - few < ALLOWED_GROWTH_KB, f"peak {few} kB with 10 pages, {many} kB with 100"
