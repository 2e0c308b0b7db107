"""The message of a collect task: task id, generation and schema version, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
import pika

from collect_ops.kernel.errors import CollectOpsError, Permanent

SCHEMA_VERSION = 1


class MalformedMessage(CollectOpsError, Permanent):
    """A message's body is not what collect-ops writes."""

    def __init__(self, body: bytes, problem: str) -> None:
        self.body = body
        self.problem = problem
        super().__init__(f"message {body[:80]!r}: {problem}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMessage:
    """Names a collect task and the generation of its publication."""

    task_id: int
    generation: int

    def encode(self) -> bytes:
        """The JSON body."""
        return orjson.dumps(
            {"schema": SCHEMA_VERSION, "task_id": self.task_id, "generation": self.generation}
        )

    @classmethod
    def decode(cls, body: bytes) -> TaskMessage:
        """Read a body.

        Raises:
            MalformedMessage: It is not JSON, of another schema version, or a field is not a positive integer.
        """
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise MalformedMessage(body, f"is not JSON: {error}") from error
        if not isinstance(value, dict) or value.get("schema") != SCHEMA_VERSION:
            raise MalformedMessage(body, f"must be an object with schema {SCHEMA_VERSION}")
        for name in ("task_id", "generation"):
            number = value.get(name)
            if type(number) is not int or not 0 < number < 2**63:
                raise MalformedMessage(body, f"{name} must be a positive integer, got {number!r}")
        return cls(task_id=value["task_id"], generation=value["generation"])


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingMessage:
    """A message on its way to an exchange.

    Args:
        exchange: Exchange name; "" is the default exchange.
        routing_key: Routing key.
        body: Bytes, JSON unless said otherwise.
        priority: 0-10, for queues with x-max-priority.
        headers: AMQP headers.
        message_id: Shown in the management page; helps people, decides nothing.
        content_type: What the body is.
        correlation_id: Of a reply: what the request said.
        reply_to: Queue that an answer shall go to.
        app_id: Who publishes.
        mandatory: Whether a message that no queue takes comes back and counts as not confirmed.
        moved: Of a message that is moved from queue to queue: all its properties, in place of the ones above.
    """

    exchange: str
    routing_key: str
    body: bytes
    priority: int = 0
    headers: dict[str, str | int | float] | None = None
    message_id: str | None = None
    content_type: str = "application/json"
    correlation_id: str | None = None
    reply_to: str | None = None
    app_id: str | None = None
    mandatory: bool = True
    moved: pika.BasicProperties | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.priority <= 255:
            raise ValueError(f"priority must be 0 to 255, got {self.priority}")
