"""What a process of release 0.1.0 does; runs in a checkout of it. Arguments as JSON on stdin, the answer on stdout.

`acts`: `collect` (claim, plan, run, settle), `submit` (admit a task of `source`), `redrive` (a dead letter), `sweep`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from collect_ops.broker.publisher import Publisher
from collect_ops.delivery import merging, outbox, repair
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import lane_rules
from collect_ops.sources.model import Source
from collect_ops.storage import connect
from tests.plugins.integration.delivery.letters import sent_again
from tests.plugins.integration.world import World


def main() -> None:
    asked: dict[str, Any] = json.load(sys.stdin)
    world = World(Backends(**asked["backends"]), lane_rules())
    world.serve_from(asked["base_url"])
    for declared in asked.get("sources", ()):
        world.add(Source.model_validate(declared))
    for act in asked["acts"]:
        if act == "submit":
            world.submit(asked["sources"][0]["name"])
        elif act == "redrive":
            sent_again(world, ids=asked["letters"])
        elif act == "sweep":
            merging.run_once(world.backends, world.rules, actor="old")
            repair.run_once(world.backends, world.rules, world.runs, actor="old")
            with connect(world.backends.postgres_dsn) as db, Publisher(world.backends.amqp_url) as publisher:
                outbox.run_once(db, publisher, world.rules, older_than_s=0.0)
        else:
            world.claim_and_run()
    print("\n" + json.dumps(world.rows("SELECT id, status, reason FROM collect.task ORDER BY id")))


if __name__ == "__main__":
    main()
