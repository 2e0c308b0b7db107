"""A shard that failed at its last page for its bad rows has landed all of it: running it again lands nothing twice."""

from __future__ import annotations

from collections.abc import Callable

from collect_ops.broker.publisher import Publisher
from collect_ops.delivery import outbox
from collect_ops.storage import Connection
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer


def test_a_redriven_append_does_not_land_twice(
    world: World, serve: Callable[..., PagedServer], db: Connection
) -> None:
    server = serve(rows=20)  # ten of them have ids of two digits
    target = {"table": "things", "disposition": "append", "columns": {"id": {"type": "varchar(1)"}}}
    world.add(source(target=target, max_bad_rows=5))
    world.serve_from(server.base_url)
    task_id = world.collect()
    assert world.task(task_id)["status"] == "DEAD"
    landed = world.rows("SELECT count(*) AS n FROM landing.things")[0]["n"]
    assert landed == 10

    db.execute(
        "UPDATE collect.task SET status = 'QUEUED', generation = generation + 1, finished_at = NULL WHERE id = %s",
        (task_id,),
    )
    with Publisher(world.backends.amqp_url) as publisher:
        outbox.run_once(db, publisher, world.rules, older_than_s=0)
    assert world.claim_and_run()
    assert world.rows("SELECT count(*) AS n FROM landing.things")[0]["n"] == landed
    task = world.task(task_id)
    assert (task["status"], task["result"]["rows_fetched"]) == ("DEAD", 20)
    assert "10 rows do not fit their columns, max_bad_rows is 5" in task["reason"]
