"""`collect-ops backlog`: sources of which nothing waits are left out."""

from __future__ import annotations

import json
from collections.abc import Callable

from collect_ops.storage import connect
from tests.factories import source
from tests.plugins.integration.world import World

Run = Callable[..., tuple[int, str, str]]


def test_idle_sources_are_hidden(world: World, collect_ops: Run) -> None:
    world.add(source("busy_one"), source("idle_one"))
    world.submit("busy_one")
    idle = world.submit("idle_one").task_id
    with connect(world.backends.postgres_dsn) as connection:
        connection.execute(
            "UPDATE collect.task SET status = 'CANCELLED', finished_at = now() WHERE id = %s", [idle]
        )
    code, out, _ = collect_ops("backlog")
    assert (code, "source busy_one" in out, "source idle_one" in out) == (0, True, False)
    assert "1 idle source: --all" in out
    code, out, _ = collect_ops("backlog", "--all")
    assert (code, "source idle_one" in out, "--all" in out) == (0, True, False)
    code, out, _ = collect_ops("backlog", "--json")
    assert set(json.loads(out)["sources"]) == {"busy_one", "idle_one"}
