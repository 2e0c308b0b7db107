"""Functions that tests name as entry points."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from collect_ops.execution.entry_point import ShardContext, ShardDescription
from collect_ops.kernel.errors import CollectOpsError, Transient

NOT_A_FUNCTION = 7


class Busy(CollectOpsError, Transient):
    """Asked too early."""


def thirds(params: Mapping[str, Any], context: ShardContext) -> Iterator[dict[str, Any] | ShardDescription]:
    """Three ranges of 0 to 99; the width comes from the options."""
    width = context.options.get("width", 34)
    for low in range(0, 100, width):
        found = {"first": low, "last": min(low + width, 100) - 1}
        yield (
            {"params": found, "label": f"{context.source} from {low}"}
            if low
            else ShardDescription(params=found)
        )


def with_a_loop(params: Mapping[str, Any], context: ShardContext) -> list[dict[str, Any]]:
    """Asks something, asynchronously."""
    return [{"params": {"first": asyncio.run(asyncio.sleep(0, 5))}}]


def endless(params: Mapping[str, Any], context: ShardContext) -> Iterator[dict[str, Any]]:
    """Does not end."""
    while True:
        yield {"params": {"first": 1}}


def raises(params: Mapping[str, Any], context: ShardContext) -> list[dict[str, Any]]:
    """Has a bug."""
    raise KeyError("customer")


def busy(params: Mapping[str, Any], context: ShardContext) -> list[dict[str, Any]]:
    """Fails for now."""
    raise Busy("come back later")


def returns(params: Mapping[str, Any], context: ShardContext) -> Any:
    """What the options say."""
    return context.options["what"]


def wants_more(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Takes too few arguments."""
    return []
