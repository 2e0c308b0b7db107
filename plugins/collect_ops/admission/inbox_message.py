"""Messages of the AMQP inbox: what producers write, and what they are answered. Pure."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from collect_ops.admission.model import Admission, Submission
from collect_ops.admission.policy import MAX_DEPTH, too_deep
from collect_ops.broker.consumer import Delivery
from collect_ops.kernel.errors import CollectOpsError, Fault, ValidationFailed
from collect_ops.kernel.faults import faults_from
from collect_ops.tasks.lifecycle import TaskStatus

SCHEMA_VERSION = 1
#: Bytes of a body. A submission is a source's name and a few values.
MAX_BODY = 1024 * 1024
#: Characters of an error in a reply or a header.
MAX_TEXT = 1000

_SUBJECT = "inbox message"
_JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"


def _only_text(value: object) -> object:
    # Pydantic would read a number as seconds since 1970.
    if value is not None and not isinstance(value, str):
        raise ValueError("must be text such as 2026-01-31T08:00:00Z")
    return value


Deadline = Annotated[AwareDatetime | None, Field(strict=False), BeforeValidator(_only_text)]


class InboxMessage(BaseModel):
    """A submission, as producers publish it to the inbox."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    source: Annotated[str, Field(min_length=1, max_length=200)]
    """Name of the source."""
    params: Mapping[str, Any] = Field(default_factory=dict)
    """Values for the parameters that the source declares."""
    path: str | None = None
    """Instead of the source's path, relative to its connection."""
    priority: Annotated[int, Field(ge=0, le=10)] | None = None
    """0 to 10; null takes the source's."""
    emergency: bool = False
    """Whether it is one: raises the priority by what the rules say."""
    force: bool = False
    """Admit even when an equal task holds the dedup key; needs a request id."""
    deadline: Deadline = None
    """When the rows are needed at the latest, with an offset from UTC."""
    request_id: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    """Who asked, once: the same id gets the first answer again. Without it: producer and property message_id."""
    identity: Mapping[str, Any] = Field(default_factory=dict)
    """What makes this submission another one beside its request, such as a data interval."""


class Answered(BaseModel):
    """The reply to a submission that has a task."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    request_id: str
    """Of the submission; the inbox gives one to messages without."""
    task_id: int
    """The task: a new one, or the one that this submission duplicates."""
    status: TaskStatus
    """Where it stands."""
    duplicate_of: int | None
    """The task that was there before, null for a new one."""
    declaration_changed: bool
    """Of a duplicate: its source has been declared otherwise since that task was admitted."""
    merged_into: int | None
    """The task that does the work, when the new one was merged into it."""
    message: str
    """The same for people."""


class FaultOfField(BaseModel):
    """One thing wrong with a submission."""

    field: str
    value: str | int | float | bool | None
    problem: str
    allowed: list[str]


class Refused(BaseModel):
    """The reply to a message that was not admitted, and will not be when it is sent again."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    error: str
    """What is wrong, for people."""
    faults: list[FaultOfField]
    """All that is wrong, when it can be said field by field."""


def decode(body: bytes) -> InboxMessage:
    """Read a body.

    Raises:
        ValidationFailed: It is too large, no JSON, of another schema version, or its fields have faults; all of them.
    """
    if len(body) > MAX_BODY:
        raise _refusal(f"is {len(body)} bytes, at most {MAX_BODY} are read")
    value = _parsed(body)
    if not isinstance(value, dict):
        raise _refusal("must be a JSON object")
    version = value.pop("schema", None)
    if type(version) is not int or version != SCHEMA_VERSION:
        fault = Fault(field="schema", value=shown(version), problem=f"must be {SCHEMA_VERSION}")
        raise ValidationFailed(_SUBJECT, (fault,))
    try:
        return InboxMessage.model_validate(value)
    except ValidationError as error:
        raise ValidationFailed(_SUBJECT, faults_from(error, InboxMessage)) from error


def submission_of(message: InboxMessage, delivery: Delivery) -> Submission:
    """The submission that a message stands for.

    Without a request id of its own it gets one of its producer and its message id. Without either it gets a new one:
    delivered twice it is then refused as a duplicate like any other equal, which a forced one would not be.

    Raises:
        ValidationFailed: It is forced and cannot be told from its own redelivery.
    """
    request_id = message.request_id or _request_id(delivery)
    if request_id is None and message.force:
        problem = "needs a request_id or the property message_id: a message may be delivered twice"
        raise ValidationFailed(_SUBJECT, (Fault(field="force", value=True, problem=problem),))
    return Submission(
        **{name: getattr(message, name) for name in InboxMessage.model_fields if name != "request_id"},
        request_id=request_id or f"amqp:{uuid.uuid4()}",
        submitted_by=f"amqp:{producer(delivery)}",
        submitted_via="amqp",
    )


def producer(delivery: Delivery) -> str:
    """Who published: the user (which RabbitMQ checks), else the application's own word."""
    return delivery.user_id or delivery.app_id or "unknown"


def answered(admission: Admission) -> bytes:
    """The reply to an admission."""
    reply = Answered(
        request_id=admission.request_id,
        task_id=admission.task_id,
        status=admission.status,
        duplicate_of=admission.duplicate_of,
        declaration_changed=admission.declaration_changed,
        merged_into=admission.merged_into,
        message=admission.sentence(),
    )
    return _encoded(reply)


def refused(error: CollectOpsError) -> bytes:
    """The reply to a message that was not admitted."""
    return _encoded(Refused(error=readable(str(error)), faults=_faults(error)))


def readable(text: str, limit: int = MAX_TEXT) -> str:
    """Text that every encoding can carry: lone surrogates as escapes, cut at `limit` characters."""
    return text[:limit].encode("utf-8", "backslashreplace").decode()[:limit]


def shown(value: object) -> str | int | float | bool | None:
    """A value as it is told to its sender: scalars as they are, text cut, others as what they are."""
    if isinstance(value, Mapping):
        return f"an object of {len(value)}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return readable(value, 200)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else "a number beyond 64 bits"
    return value if isinstance(value, float) and math.isfinite(value) else type(value).__name__


def json_schema() -> dict[str, Any]:
    """The JSON Schema of an inbox message."""
    schema = InboxMessage.model_json_schema()
    properties = {"schema": {"const": SCHEMA_VERSION, "description": "Version of this form."}}
    return {
        "$schema": _JSON_SCHEMA,
        **schema,
        "properties": {**properties, **schema["properties"]},
        "required": ["schema", *schema["required"]],
    }


def reply_json_schema() -> dict[str, Any]:
    """The JSON Schema of a reply."""
    schema = TypeAdapter(Answered | Refused).json_schema(mode="serialization")
    return {"$schema": _JSON_SCHEMA, "title": "InboxReply", **schema}


def _encoded(reply: BaseModel) -> bytes:
    return json.dumps(reply.model_dump(mode="json", by_alias=True)).encode()


def _faults(error: CollectOpsError) -> list[FaultOfField]:
    if not isinstance(error, ValidationFailed):
        return []
    return [
        FaultOfField(
            field=readable(fault.field),
            value=shown(fault.value),
            problem=readable(fault.problem),
            allowed=[readable(one) for one in fault.allowed],
        )
        for fault in error.faults
    ]


def _request_id(delivery: Delivery) -> str | None:
    if not delivery.message_id:
        return None
    name = f"amqp:{producer(delivery)}:{delivery.message_id}"
    # Each of the two may be 255 bytes long.
    return name if len(name) <= 500 else f"amqp:{hashlib.sha256(name.encode()).hexdigest()}"


def _refusal(problem: str) -> ValidationFailed:
    return ValidationFailed(_SUBJECT, (Fault(field="body", value=None, problem=problem),))


def _parsed(body: bytes) -> Any:
    """The JSON value. Python's own parser, since orjson reads whole numbers beyond 64 bits as floats."""
    try:
        text = body.decode("utf-8-sig")  # some producers write a byte order mark
    except UnicodeDecodeError as error:
        raise _refusal(f"is not UTF-8: {error}") from error
    try:
        value = json.loads(
            text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_without_repeats
        )
    except RecursionError as error:
        raise _refusal(f"nests deeper than {MAX_DEPTH}") from error
    except ValueError as error:
        raise _refusal(f"is not JSON: {readable(str(error), 200)}") from error
    if too_deep(value):
        raise _refusal(f"nests deeper than {MAX_DEPTH}")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no value of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _without_repeats(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:80]!r} stands there twice")
        found[name] = value
    return found
