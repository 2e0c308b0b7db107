"""Which nodes a filter means, and the sentence that sums them up."""

from __future__ import annotations

from typing import Any

import pytest

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.nodes.listing import filter_of, summary


def node(node_id: str, status: str = "ACTIVE", **fields: Any) -> dict[str, Any]:
    shown = {"id": node_id, "name": f"{node_id}.example", "address": "10.0.0.1", "status_reason": None}
    return {**shown, "status": status, "labels": {}, "groups": 1, "slots": 4, **fields}


NODES = [
    node("a", labels={"region": "eu", "disk": "ssd"}),
    node("b", "LOST", labels={"region": "us"}, status_reason="No Heartbeat"),
    node("c", "DRAINING", address="192.0.2.7"),
]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "abc"),
        ({"states": ["lost"]}, "b"),
        ({"states": ["lost", "DRAINING"]}, "bc"),
        ({"labels": ["region"]}, "ab"),
        ({"labels": ["region=eu"]}, "a"),
        ({"labels": ["region=eu", "disk=hdd"]}, ""),
        ({"labels": ["region="]}, ""),
        ({"search": "no heart"}, "b"),
        ({"search": "192.0.2"}, "c"),
        ({"search": "C.EXAMPLE"}, "c"),
        ({"states": ["active"], "search": "b"}, ""),
    ],
)
def test_filters(given: dict[str, Any], found: str) -> None:
    wanted = filter_of(**{"states": (), "labels": (), "search": None, **given})
    assert "".join(each["id"] for each in NODES if wanted.matches(each)) == found


@pytest.mark.parametrize(
    ("given", "field"), [({"states": ["gone"]}, "--state"), ({"labels": ["=x"]}, "--label")]
)
def test_bad_input(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        filter_of(**{"states": (), "labels": (), "search": None, **given})
    assert [fault.field for fault in refused.value.faults] == [field]


def test_the_summary_counts_the_slots_of_those_that_live() -> None:
    assert summary(NODES, of=3) == "3 nodes: 1 ACTIVE, 1 DRAINING, 1 LOST; 2 of 8 slots taken"
    assert summary(NODES[1:2], of=3) == "1 of 3 nodes: 1 LOST"
    assert summary(NODES[:1], of=1) == "1 node: 1 ACTIVE; 1 of 4 slots taken"
    assert summary([], of=0) == "0 nodes"
