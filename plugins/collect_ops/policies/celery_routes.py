"""How CeleryExecutor's messages for nodes travel: through a topic exchange, by the routing key `task.node.<id>`.

Named in `[celery] extra_celery_config` (config/airflow.env). The queue and its binding are declared with each
first publish of a connection, so that nothing is unroutable before the node's worker was ever started.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from kombu.entity import Exchange, Queue

from collect_ops.nodes.queues import EXCHANGE, node_of_queue, node_queue, routing_key


def route(
    name: str,  # noqa: ARG001 (Celery's signature)
    args: Any,  # noqa: ARG001
    kwargs: Any,  # noqa: ARG001
    options: Mapping[str, Any],
    **_: Any,
) -> dict[str, Any] | None:
    """Celery's router: where a message goes whose queue is a node's; None leaves it to Celery.

    Args:
        name: Celery task.
        args: Its arguments.
        kwargs: Its arguments by name.
        options: Of this publish; its `queue` is a kombu Queue by now, or a name.
    """
    queue = options.get("queue")
    node_id = node_of_queue(str(getattr(queue, "name", queue)))
    if node_id is None:
        return None
    return {
        "exchange": EXCHANGE,
        "routing_key": routing_key(node_id),
        "declare": [queue_of(node_id)],
        "delivery_mode": 2,
    }


@lru_cache(maxsize=1024)
def queue_of(node_id: str) -> Queue:
    """A node's queue and its binding; durable, as its worker declares it."""
    return Queue(
        node_queue(node_id),
        Exchange(EXCHANGE, type="topic", durable=True),
        routing_key=routing_key(node_id),
        durable=True,
    )
