"""Heartbeats: what a node says of itself, as JSON over AMQP. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.kernel.faults import faults_from

SCHEMA_VERSION = 1
#: Bytes of a body.
MAX_BODY = 64 * 1024
#: What a node's id may be: it becomes the name of a queue and of a key.
NODE_ID = r"^[a-z0-9][a-z0-9._-]{0,62}$"

_SUBJECT = "heartbeat"


def _storable(text: str) -> str:
    """PostgreSQL keeps no NUL, and JSON no half of a character."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("must be text without NUL and halves of surrogate pairs")
    return text


Text = Annotated[str, AfterValidator(_storable)]
Name = Annotated[Text, Field(min_length=1, max_length=200)]
Percent = Annotated[float, Field(ge=0, le=100)]
Bytes = Annotated[int, Field(ge=0, lt=2**63)]
BytesPerSecond = Annotated[float, Field(ge=0, lt=1e15)]


class Heartbeat(BaseModel):
    """A node's word of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    node_id: Annotated[str, Field(pattern=NODE_ID)]
    """Stays the same over restarts and changes of the address."""
    machine: Annotated[Text, Field(pattern=r"^\S{1,100}$")]
    """Tells machines apart: two that claim one node id differ in it."""
    boot_id: Annotated[Text, Field(pattern=r"^\S{1,64}$")]
    """Another one each time the agent starts."""
    started_at: AwareDatetime
    """When it started, by the node's clock: compared with other starts of the same node only."""
    seq: Annotated[int, Field(ge=1, lt=2**63)]
    """Counts the heartbeats since then."""
    sent_at: AwareDatetime
    """By the node's clock; nothing is decided by it."""
    clock_skew_s: Annotated[float, Field(gt=-1e12, lt=1e12)] | None = None
    """How far the node's clock is ahead of Redis'; null when that could not be asked."""
    leaving: bool = False
    """The last heartbeat: the node goes."""
    draining: bool = False
    """The node takes no new work."""

    name: Name
    """Host name."""
    address: Annotated[Text, Field(max_length=100)]
    """Address that others reach it at."""
    version: Annotated[Text, Field(max_length=100)]
    """Of collect-ops."""
    labels: Mapping[Name, Annotated[Text, Field(max_length=200)]] = Field(default_factory=dict, max_length=50)
    """What placement can ask for, such as region: eu."""
    kinds: Annotated[tuple[Name, ...], Field(max_length=50)] = ("http",)
    """Kinds of sources that its workers can collect from."""
    slots: Annotated[int, Field(ge=0, le=10_000)]
    """Shard groups that it runs at once."""

    cpu_percent: Percent
    """Of all its processors, since the heartbeat before."""
    memory_percent: Percent
    """Not available to processes."""
    memory_bytes: Bytes
    """In all."""
    disk_percent: Percent
    """Used, of the file system that the workers write to."""
    disk_free_bytes: Bytes
    """Free there."""
    load_1: Annotated[float, Field(ge=0, lt=1e6)]
    """Load average of one minute."""
    received_bytes_per_s: BytesPerSecond
    """Over all network interfaces but loopback, since the heartbeat before."""
    sent_bytes_per_s: BytesPerSecond
    """Likewise."""
    workers_bytes: Bytes
    """Memory of the worker's processes, what they share counted once; up to five minutes old."""
    groups: Annotated[int, Field(ge=0, le=1_000_000)]
    """Shard groups that run on it."""

    def encode(self) -> bytes:
        """As a message's body."""
        return self.model_dump_json(by_alias=True).encode()


def decode(body: bytes) -> Heartbeat:
    """Read a body.

    Raises:
        ValidationFailed: It is too large, no JSON, of another schema version, or its fields have faults; all of them.
    """
    if len(body) > MAX_BODY:
        raise _refusal(f"is {len(body)} bytes, at most {MAX_BODY} are read")
    try:
        value = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _refusal(f"is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise _refusal("must be a JSON object")
    version = value.get("schema")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise ValidationFailed(
            _SUBJECT, [Fault(field="schema", value=version, problem=f"must be {SCHEMA_VERSION}")]
        )
    try:
        return Heartbeat.model_validate(value)
    except ValidationError as error:
        raise ValidationFailed(_SUBJECT, faults_from(error, Heartbeat)) from error


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a heartbeat."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Heartbeat.model_json_schema(by_alias=True),
    }


def _refusal(problem: str) -> ValidationFailed:
    return ValidationFailed(_SUBJECT, [Fault(field="body", value=None, problem=problem)])


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
