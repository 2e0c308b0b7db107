"""Whose shard groups hand back when programs are stopped."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from collect_ops.nodes.machine import node_id_of
from stack import credentials, draining
from stack.layout import Layout
from stack.node_settings import LOCAL, NodeSettings
from stack.ports import Ports
from stack.programs import programs
from stack.settings import Stack

HERE = node_id_of(os.environ.get("COLLECT_NODE_ID"))
PLAIN = Stack(
    layout=Layout(home=Path("/nowhere")), ports=Ports.from_base(20_000), secrets=credentials.generate()
)
SMALL = replace(PLAIN, nodes=NodeSettings(executor=LOCAL))
HOSTS = replace(PLAIN, nodes=NodeSettings(count=2))


@pytest.mark.parametrize(
    ("stack", "names", "nodes"),
    [
        (PLAIN, ["worker"], [HERE]),
        (PLAIN, ["scheduler", "triggerer", "agent"], []),
        (SMALL, ["scheduler"], [HERE]),
        (SMALL, ["agent", "api-server"], []),
        (HOSTS, ["worker-2", "agent-2"], ["node-2"]),
        (HOSTS, ["scheduler", "worker-control"], []),
        (HOSTS, list(programs(HOSTS)), ["node-1", "node-2"]),
        (PLAIN, list(programs(PLAIN)), [HERE]),
    ],
)
def test_the_nodes_that_are_drained(stack: Stack, names: list[str], nodes: list[str]) -> None:
    assert draining.nodes_of(stack, names) == nodes
