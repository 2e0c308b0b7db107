"""Publishing to and consuming from RabbitMQ in DAGs of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from airflow.sdk import BaseOperator, Context
from airflow.sdk.bases.xcom import BaseXCom

from collect_ops.broker.consumer import Consumer, Delivery
from collect_ops.broker.message import MalformedMessage, OutgoingMessage
from collect_ops.hooks.rabbitmq import DEFAULT_CONN_ID, RabbitMQHook
from collect_ops.kernel.errors import Fault, ValidationFailed

MAX_BLOCK = 10_000


class RabbitMQPublishOperator(BaseOperator):
    """Publishes messages and succeeds when the broker has confirmed each of them, in a queue.

    Example::

        RabbitMQPublishOperator(
            task_id="announce",
            exchange="orders",
            routing_key="orders.new",
            messages='[{"order": 1}, {"order": 2, "at": "{{ ts }}"}]',
            priority=7,
        )

    Args:
        exchange: Exchange name; "" is the default one, whose routing key is a queue's name (templated).
        routing_key: Routing key (templated).
        messages: Text is parsed as JSON. A list is a message an element, anything else is one (templated;
            another task's result will do).
        priority: 0 to 255, for queues with `x-max-priority` (templated).
        headers: AMQP headers (templated).
        rabbitmq_conn_id: Airflow connection (templated).
    """

    template_fields = ("exchange", "routing_key", "messages", "priority", "headers", "rabbitmq_conn_id")
    template_fields_renderers = {"messages": "json", "headers": "json"}  # noqa: RUF012
    ui_color = "#fde8d9"

    def __init__(
        self,
        *,
        exchange: str,
        routing_key: str,
        messages: object,
        priority: int | str = 0,
        headers: Mapping[str, str | int | float] | None = None,
        rabbitmq_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.exchange = exchange
        self.routing_key = routing_key
        self.messages = messages
        self.priority = priority
        self.headers = headers
        self.rabbitmq_conn_id = rabbitmq_conn_id

    def execute(self, context: Context) -> int:
        """Returns how many messages were published.

        Raises:
            ValidationFailed: The messages are not JSON, or the priority is no number from 0 to 255.
            MessagesUnroutable: No queue took some of them.
            MessagesNotConfirmed: The broker was away, has no such exchange, or refused some of them.
        """
        ti = context["ti"]
        priority = _whole_number("priority", self.priority, low=0, high=255)
        outgoing = [
            OutgoingMessage(
                exchange=self.exchange,
                routing_key=self.routing_key,
                body=body,
                priority=priority,
                headers=dict(self.headers or {}),
                message_id=f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/{ti.map_index}/{number}",
            )
            for number, body in enumerate(bodies_of(self.messages))
        ]
        published = RabbitMQHook(self.rabbitmq_conn_id).publish(outgoing)
        self.log.info("published %d messages to %r with key %r", published, self.exchange, self.routing_key)
        return published


class RabbitMQConsumeOperator(BaseOperator):
    """Takes what is ready in a queue, highest priority first, and acks it once it is dealt with.

    Delivery is at least once. With a handler, messages are acked after it returned; when it raises, or the
    task dies, all of them go back. Without one, their bodies are the task's result, acked after it is stored.
    An empty queue is a success with nothing done: put a `RabbitMQQueueSensor` before it to wait.

    Example::

        def store(orders: list[dict[str, Any]]) -> int:
            return insert(orders)

        RabbitMQConsumeOperator(task_id="drain", queue_name="inbox", max_messages=500, handler=store)

    Args:
        queue_name: Queue name (templated). Airflow's own `queue` says where the task runs.
        max_messages: How many at most, 1 to 10,000 (templated).
        handler: Called once with the list of decoded JSON bodies; what it returns is the task's result. The
            broker takes messages back from who holds them for 30 minutes: a handler has to be faster.
        reject_malformed: What to do with bodies that are not JSON: True refuses them (to the queue's
            dead-letter exchange; without one they are gone), False fails the task and gives all back.
        rabbitmq_conn_id: Airflow connection (templated).
    """

    template_fields = ("queue_name", "max_messages", "rabbitmq_conn_id")
    ui_color = "#fde8d9"

    def __init__(
        self,
        *,
        queue_name: str,
        max_messages: int | str = 100,
        handler: Callable[[list[Any]], object] | None = None,
        reject_malformed: bool = False,
        rabbitmq_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.queue_name = queue_name
        self.max_messages = max_messages
        self.handler = handler
        self.reject_malformed = reject_malformed
        self.rabbitmq_conn_id = rabbitmq_conn_id

    def execute(self, context: Context) -> object:
        """Returns what the handler returned, or the list of bodies.

        Raises:
            ValidationFailed: `max_messages` is out of range.
            QueueMissing: There is no such queue.
            MalformedMessage: A body is not JSON, unless `reject_malformed`.
            BrokerUnavailable: RabbitMQ did not accept the connection, or closed it: the messages come again.
        """
        limit = _whole_number("max_messages", self.max_messages, low=1, high=MAX_BLOCK)
        with RabbitMQHook(self.rabbitmq_conn_id).consumer() as consumer:
            bodies, tags = self._decoded(consumer, consumer.take(self.queue_name, limit))
            with consumer.kept_alive():
                result = self._deal_with(bodies, context)
            consumer.ack(tags)
        self.log.info("took %d messages from %s", len(tags), self.queue_name)
        return result

    def _decoded(self, consumer: Consumer, taken: list[Delivery]) -> tuple[list[Any], list[int]]:
        bodies, tags = [], []
        for delivery in taken:
            try:
                bodies.append(orjson.loads(delivery.body))
                tags.append(delivery.tag)
            except orjson.JSONDecodeError as error:
                malformed = MalformedMessage(delivery.body, f"is not JSON: {error}")
                if not self.reject_malformed:
                    raise malformed from error
                self.log.error("refused, to the dead-letter exchange of %s: %s", self.queue_name, malformed)
                consumer.reject([delivery.tag])
        return bodies, tags

    def _deal_with(self, bodies: list[Any], context: Context) -> object:
        if self.handler is not None:
            return self.handler(bodies) if bodies else None
        if self.do_xcom_push:
            # Stored here, and by Airflow again when execute returns: an ack in between may not lose them.
            context["ti"].xcom_push(BaseXCom.XCOM_RETURN_KEY, bodies)
        return bodies


def bodies_of(messages: object) -> list[bytes]:
    """The JSON bodies that `messages` stands for: text is parsed first; a list is a body an element.

    Raises:
        ValidationFailed: It is text that is not JSON, or has something in it that JSON cannot say.
    """
    try:
        value = orjson.loads(messages) if isinstance(messages, str) else messages
        elements = value if isinstance(value, list | tuple) else [value]
        return [orjson.dumps(element) for element in elements]
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        fault = Fault(field="messages", value=repr(messages)[:80], problem=f"must be JSON: {error}")
        raise ValidationFailed("RabbitMQ publish", [fault]) from error


def _whole_number(field: str, value: int | str, *, low: int, high: int) -> int:
    """A templated number (templates render to text)."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = low - 1
    if not low <= number <= high:
        fault = Fault(field=field, value=value, problem=f"must be a whole number from {low} to {high}")
        raise ValidationFailed("RabbitMQ operator", [fault])
    return number
