"""`include/rules/sharding.yaml`, validated when loaded."""

from __future__ import annotations

from functools import cache
from typing import Annotated

from pydantic import Field

from collect_ops.kernel.rules_file import Rules, load_rules, shipped


class ShardingRules(Rules):
    """The installation's defaults of sharding.

    Args:
        target_s: Seconds that a shard shall take.
        history: Finished shards of a source whose pace counts.
        steal: Whether a shard group that has finished takes unstarted shards of others of its run.
    """

    target_s: Annotated[float, Field(ge=0.01, le=86_400)] = 20.0
    history: Annotated[int, Field(ge=3, le=1000)] = 20
    steal: bool = True


@cache
def sharding_rules() -> ShardingRules:
    """The rules of this installation: `include/rules/sharding.yaml`."""
    return load_rules(shipped("sharding"), ShardingRules)
