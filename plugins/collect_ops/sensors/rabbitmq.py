"""Waiting for a RabbitMQ queue in a DAG of one's own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator, Context, PokeReturnValue

from collect_ops.broker.consumer import QueueMissing
from collect_ops.hooks.rabbitmq import DEFAULT_CONN_ID, RabbitMQHook
from collect_ops.triggers.rabbitmq import RabbitMQQueueTrigger


class RabbitMQQueueSensor(BaseSensorOperator):
    """Waits until a queue holds enough messages; takes none. Without a worker slot, unless told otherwise.

    The first look is made by the task itself, so that a wrong queue, address or password fails at once; an
    outage of the broker after that is waited through, up to `timeout`.

    Example::

        RabbitMQQueueSensor(task_id="wait_for_orders", queue_name="inbox", min_messages=10, timeout=3600)

    Args:
        queue_name: Queue name (templated). Airflow's own `queue` says where the task runs.
        min_messages: Messages (ready ones, not those taken and unacked) that are enough (templated).
        missing_ok: Whether a queue that is not declared is waited for, too.
        deferrable: Whether the triggerer waits; else the task does, in its `mode`.
        poke_interval: Seconds between two looks.
        rabbitmq_conn_id: Airflow connection (templated).
    """

    template_fields = ("queue_name", "min_messages", "rabbitmq_conn_id")
    ui_color = "#fff6d6"

    def __init__(
        self,
        *,
        queue_name: str,
        min_messages: int | str = 1,
        missing_ok: bool = False,
        deferrable: bool = True,
        poke_interval: timedelta | float = 2.0,
        rabbitmq_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.queue_name = queue_name
        self.min_messages = min_messages
        self.missing_ok = missing_ok
        self.deferrable = deferrable
        self.rabbitmq_conn_id = rabbitmq_conn_id

    def poke(self, context: Context) -> PokeReturnValue:
        """Whether the queue holds enough; the task's result is how many messages it holds.

        Raises:
            QueueMissing: There is no such queue, unless `missing_ok`.
            BrokerUnavailable: RabbitMQ did not accept the connection.
        """
        try:
            depth = RabbitMQHook(self.rabbitmq_conn_id).depth(self.queue_name)
        except QueueMissing:
            if not self.missing_ok:
                raise
            depth = 0
        self.log.info("queue %s holds %d messages, waiting for %s", self.queue_name, depth, self.min_messages)
        return PokeReturnValue(is_done=depth >= int(self.min_messages), xcom_value=depth)

    def execute(self, context: Context) -> object:
        """Returns how many messages the queue held."""
        if not self.deferrable:
            return super().execute(context)
        looked = self.poke(context)
        if looked.is_done:
            return looked.xcom_value
        return self.defer(
            trigger=RabbitMQQueueTrigger(
                queue_name=self.queue_name,
                min_messages=int(self.min_messages),
                poll_interval_s=self.poke_interval,
                missing_ok=self.missing_ok,
                rabbitmq_conn_id=self.rabbitmq_conn_id,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any],
    ) -> int:
        """Returns how many messages the queue held when the trigger fired."""
        self.log.info("queue %s holds %d messages", event["queue"], event["messages"])
        return int(event["messages"])
