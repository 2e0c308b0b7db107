"""The addresses of PostgreSQL, Redis and RabbitMQ, as every use case takes them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from collect_ops.kernel.errors import CollectOpsError, Permanent


class SettingMissing(CollectOpsError, Permanent):
    """A setting that is needed is not there."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        super().__init__(f"not set in the environment: {', '.join(names)} (`make env` prints them)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """Where the three services are.

    Args:
        postgres_dsn: libpq connection string of the collect_ops database.
        redis_url: `redis://…` address.
        amqp_url: `amqp://…` address, vhost included.
        rabbitmq_api_url: Management API with credentials; None when there is none: what needs it then waits longer.
        node_queues: Each node serves a queue of its own (Airflow's CeleryExecutor), so that shard groups can be sent to
            it; else they run beside the scheduler.
    """

    postgres_dsn: str = field(repr=False)
    redis_url: str = field(repr=False)
    amqp_url: str = field(repr=False)
    rabbitmq_api_url: str | None = field(default=None, repr=False)
    node_queues: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Backends:
        """Read COLLECT_POSTGRES_DSN, COLLECT_REDIS_URL, COLLECT_AMQP_URL, COLLECT_RABBITMQ_API_URL, and the executor.

        Raises:
            SettingMissing: One of the first three is not set.
        """
        needed = ("COLLECT_POSTGRES_DSN", "COLLECT_REDIS_URL", "COLLECT_AMQP_URL")
        missing = tuple(name for name in needed if not environment.get(name))
        if missing:
            raise SettingMissing(missing)
        return cls(
            postgres_dsn=environment["COLLECT_POSTGRES_DSN"],
            redis_url=environment["COLLECT_REDIS_URL"],
            amqp_url=environment["COLLECT_AMQP_URL"],
            rabbitmq_api_url=environment.get("COLLECT_RABBITMQ_API_URL") or None,
            node_queues=serves_node_queues(environment.get("AIRFLOW__CORE__EXECUTOR", ""), environment),
        )


def serves_node_queues(executor: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether shard groups are sent to the queues of chosen nodes.

    Args:
        executor: Its name in Airflow's configuration: only Celery's has queues.
        environment: COLLECT_NODE_QUEUES=0 says that one worker runs everything, and there is nothing to choose.
    """
    return "CeleryExecutor" in executor and environment.get("COLLECT_NODE_QUEUES") != "0"
