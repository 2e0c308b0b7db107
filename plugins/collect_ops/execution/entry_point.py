"""Shards that a Python function describes: calling it, and believing nothing of what it says.

`package.module:function` is called as `function(params, context)` and returns, or yields, a description a shard: a
mapping, or a `ShardDescription`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from collect_ops.kernel.errors import CollectOpsError, Permanent, Transient
from collect_ops.sources.declaration import Scalar
from collect_ops.sources.model import EntryPointShards, Source
from collect_ops.sources.params import Unfit


class ShardDescription(BaseModel):
    """One shard, as an entry point describes it.

    Args:
        params: What it asks for beside the task's parameters, which it overrides.
        label: What it asks for, for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    params: dict[str, Scalar]
    label: str | None = Field(default=None, max_length=200)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardContext:
    """What an entry point is told beside the parameters.

    Args:
        source: The source's name.
        task_id: The collect task; None for a preview.
        attempt: Its attempt; None for a preview.
        options: `shards.options` of the declaration.
    """

    source: str
    task_id: int | None = None
    attempt: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class EntryPointFailed(CollectOpsError, Permanent):
    """An entry point cannot be called, failed, or described shards that are none.

    Args:
        source: The source that names it.
        entry_point: `package.module:function`.
        problem: What is wrong, as the predicate of a sentence.
    """

    def __init__(self, source: str, entry_point: str, problem: str) -> None:
        self.problem = problem
        super().__init__(f"source {source}: shards.entry_point {entry_point} {problem}")


class EntryPointPassing(CollectOpsError, Transient):
    """An entry point failed with an error that says of itself that it passes."""

    def __init__(self, source: str, entry_point: str, problem: str) -> None:
        super().__init__(f"source {source}: shards.entry_point {entry_point} {problem}")


def load_entry_point(source: str, name: str) -> Callable[..., Any]:
    """The function that a name means; its module is imported.

    Args:
        source: The source that names it, for the error.
        name: `package.module:function`.

    Raises:
        EntryPointFailed: There is none.
    """
    try:
        found = EntryPoint(name="shards", value=name, group="collect_ops.shards").load()
    except Exception as error:
        # A module may raise whatever it likes when it is imported.
        problem = f"cannot be imported: {type(error).__name__}: {error}"
        raise EntryPointFailed(source, name, problem) from error
    if not callable(found):
        raise EntryPointFailed(source, name, f"is not a function but {type(found).__name__}")
    function: Callable[..., Any] = found
    return function


def described_shards(
    source: Source, rule: EntryPointShards, params: Mapping[str, Scalar], context: ShardContext, limit: int
) -> list[ShardDescription]:
    """The shards that an entry point describes, their parameters checked and canonical.

    Args:
        source: The source.
        rule: Its rule.
        params: The task's parameters, canonical.
        context: What the function is told.
        limit: Descriptions that are taken at most; a function may yield without end.

    Raises:
        EntryPointFailed: It names what is wrong.
        EntryPointPassing: The function raised an error that is `Transient`.
    """
    function = load_entry_point(source.name, rule.entry_point)
    try:
        found = list(islice(_iterated(source, rule, function(dict(params), context)), limit))
    except EntryPointFailed:
        raise
    except Exception as error:
        kind = EntryPointPassing if isinstance(error, Transient) else EntryPointFailed
        problem = f"raised {type(error).__name__}: {error}"
        raise kind(source.name, rule.entry_point, problem) from error
    return [_checked(source, rule, number, one) for number, one in enumerate(found)]


def _iterated(source: Source, rule: EntryPointShards, returned: object) -> Iterator[object]:
    if isinstance(returned, str | bytes | Mapping) or not isinstance(returned, Iterable):
        problem = f"must return a list of shard descriptions, returned {type(returned).__name__}"
        raise EntryPointFailed(source.name, rule.entry_point, problem)
    return iter(returned)


def _checked(source: Source, rule: EntryPointShards, number: int, found: object) -> ShardDescription:
    def wrong(problem: str) -> EntryPointFailed:
        return EntryPointFailed(source.name, rule.entry_point, f"described shard {number} wrong: {problem}")

    try:
        described = ShardDescription.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "description"
        raise wrong(f"{place}: {first['msg']} (got {str(first['input'])[:200]!r})") from error
    declared = source.request.params
    params: dict[str, Scalar] = {}
    for name, value in described.params.items():
        if name not in declared:
            raise wrong(f"params.{name} is not a parameter of the source; declared are {', '.join(declared)}")
        try:
            params[name] = declared[name].coerce(value)
        except Unfit as unfit:
            raise wrong(f"params.{name} {unfit.problem} (got {value!r})") from unfit
    return described.model_copy(update={"params": params})
