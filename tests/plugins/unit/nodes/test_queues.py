"""Names of nodes' queues, and what the Celery router makes of them."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.nodes.heartbeat import NODE_ID
from collect_ops.nodes.queues import EXCHANGE, is_node_id, node_of_queue, node_queue
from collect_ops.policies.celery_routes import route

NODE_IDS = st.from_regex(re.compile(NODE_ID), fullmatch=True).filter(is_node_id)


@given(NODE_IDS)
def test_a_queue_names_its_node(node_id: str) -> None:
    assert node_of_queue(node_queue(node_id)) == node_id
    routed = route("execute_workload", (), {}, {"queue": SimpleNamespace(name=node_queue(node_id))})
    assert routed is not None
    assert (routed["exchange"], routed["routing_key"]) == (EXCHANGE, f"task.node.{node_id}")
    (queue,) = routed["declare"]
    assert (queue.name, queue.routing_key, queue.exchange.type) == (
        node_queue(node_id), f"task.node.{node_id}", "topic",
    )  # fmt: skip


@pytest.mark.parametrize("queue", ["default", "control", "node.", "node.Bad", "nodes.a", "", None])
def test_any_other_queue_is_left_to_celery(queue: str | None) -> None:
    assert route("execute_workload", (), {}, {"queue": queue}) is None
    assert route("execute_workload", (), {}, {}) is None


@pytest.mark.parametrize("value", [None, 7, "", "A", "a/b", "a\n", "x" * 64, ["a"]])
def test_what_is_no_node_id(value: object) -> None:
    assert not is_node_id(value)
