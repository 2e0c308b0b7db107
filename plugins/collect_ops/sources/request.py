"""From a source and its parameters to the request of one page. Pure.

Promises: a parameter's value stays a value. It cannot add a path segment, a query parameter or a header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote, unquote

from collect_ops.kernel.errors import Fault, ValidationFailed, did_you_mean
from collect_ops.sources.declaration import Scalar
from collect_ops.sources.model import AskedRange, RequestTotal, Source
from collect_ops.sources.params import Unfit
from collect_ops.sources.relative import Moment
from collect_ops.sources.shard_faults import asked_range_of
from collect_ops.sources.templates import ABSENT, fill_text, fill_value, placeholders, text_of
from collect_ops.sources.texts import climbing_problem, has_control_characters, path_problem

# What may stand in a path as it is (RFC 3986 pchar and "/"); "%" because a declared path may hold escapes.
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedRequest:
    """A request with its parameters filled in, before authentication and paging.

    Args:
        method: `GET` or `POST`.
        path: Percent-encoded as it goes on the wire, with a leading `/`; below the connection's base URL.
        query: Query parameters, not encoded; each has one value or more.
        headers: Request headers.
        body: What the body says; None means no body.
        body_type: How it is written: `json` or `form`.
        total: The request that tells the total, when the source has one (`total.type: request`).
    """

    method: str
    path: str
    query: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    body_type: Literal["json", "form"] = "json"
    total: RenderedRequest | None = None


def check_params(
    source: Source, given: Mapping[str, object], *, at: datetime | None = None
) -> dict[str, Scalar]:
    """The parameters of one submission: defaults filled in, values canonical.

    A parameter given as None counts as not given. Checking what was checked changes nothing.

    Args:
        source: The source.
        given: Parameters by name, as they came from a form, JSON or a command line.
        at: What relative defaults count from; None for now.

    Returns:
        A value for each parameter that has one, in the order of the declaration.

    Raises:
        ValidationFailed: Unknown names, missing or unfit values; all of them.
    """
    values, faults = _checked(source, given, admitted=False, at=at)
    if faults:
        raise ValidationFailed(f"parameters of source {source.name}", faults)
    return values


def admitted_params(source: Source, given: Mapping[str, object]) -> dict[str, Scalar]:
    """The parameters of an admitted task, as `check_params` gives them; no pattern is asked again.

    Args:
        source: What the task was admitted with.
        given: Its parameters.

    Raises:
        ValidationFailed: They do not fit what the task was admitted with; all of them.
    """
    values, faults = _checked(source, given, admitted=True)
    if faults:
        raise ValidationFailed(f"parameters of source {source.name}", faults)
    return values


def render(source: Source, params: Mapping[str, object], path: str | None = None) -> RenderedRequest:
    """The request of one page.

    An entry of query, headers or body that names a parameter without a value is left out.

    Args:
        source: The source.
        params: Parameters by name; checked here.
        path: Instead of the source's path; relative to the connection's base URL, may hold `{name}`.

    Raises:
        ValidationFailed: Parameters or path have faults; all of them.
    """
    return _request(source, params, path, admitted=False)[1]


def render_admitted(source: Source, params: Mapping[str, object], path: str | None = None) -> RenderedRequest:
    """The request of an admitted task: `render`, but for what is judged once only, when a task is admitted.

    That is the path, where more is refused by now, and the patterns of the parameters.

    Args:
        source: What the task was admitted with.
        params: Its parameters, and a shard's.
        path: Its path, instead of the source's.

    Raises:
        ValidationFailed: They do not make a request.
    """
    return _request(source, params, path, admitted=True)[1]


def checked_request(
    source: Source,
    given: Mapping[str, object],
    path: str | None = None,
    *,
    at: datetime | None = None,
) -> tuple[dict[str, Scalar], RenderedRequest]:
    """`check_params` and `render` in one, for what somebody asks for now.

    Stricter than `render`, which also reads what was admitted under older rules: no path is taken that another server
    might read as one above the base URL.

    Args:
        source: The source.
        given: Parameters by name, as they came.
        path: Instead of the source's path.
        at: What relative defaults count from; None for now.

    Raises:
        ValidationFailed: Parameters or path have faults; all of them.
    """
    values, request = _request(source, given, path, admitted=False, at=at)
    paths = {"path": request.path}
    if request.total is not None:
        paths["total.path"] = request.total.path
    asked = asked_range_of(source)
    if asked is not None:
        paths["shards.range.path"] = _path(asked.path, values)
    faults = [
        Fault(field=field, value=rendered, problem=f"{problem}, once filled")
        for field, rendered in paths.items()
        if (problem := climbing_problem(rendered))
    ]
    if faults:
        raise ValidationFailed(f"request of source {source.name}", faults)
    return values, request


def _request(
    source: Source,
    given: Mapping[str, object],
    path: str | None,
    *,
    admitted: bool,
    at: datetime | None = None,
) -> tuple[dict[str, Scalar], RenderedRequest]:
    values, faults = _checked(source, given, admitted=admitted, at=at)
    template = source.request.path if path is None else path
    if not admitted:
        faults += _template_faults(source, template)
    path = "" if faults else _path(template, values)
    headers = {} if faults else _headers(source, values)
    if not faults:
        faults += [*_path_faults(template, path, values), *_header_faults(headers)]
    if faults:
        raise ValidationFailed(f"request of source {source.name}", faults)
    body = fill_value(source.request.body, values)
    request = RenderedRequest(
        method=source.request.method,
        path=path,
        query=_query(source.request.query, values),
        headers=headers,
        body=None if body is ABSENT else body,
        body_type=source.request.body_type,
        total=_total(source, values),
    )
    return values, request


def _total(source: Source, values: Mapping[str, Scalar]) -> RenderedRequest | None:
    total = source.total
    if not isinstance(total, RequestTotal):
        return None
    path = _path(total.path, values)
    if faults := tuple(_path_faults(total.path, path, values)):
        raise ValidationFailed(f"count request of source {source.name}", faults)
    return RenderedRequest(
        method="GET",
        path=path,
        query=_query(total.query, values),
        headers=_headers(source, values),
    )


def render_asked(source: Source, asked: AskedRange, params: Mapping[str, object]) -> RenderedRequest:
    """The request that tells the ends of a range.

    Args:
        source: The source.
        asked: Its `shards.range`.
        params: The parameters of an admitted task.

    Raises:
        ValidationFailed: The parameters have faults; all of them.
    """
    values = admitted_params(source, params)
    path = _path(asked.path, values)
    if faults := tuple(_path_faults(asked.path, path, values)):
        raise ValidationFailed(f"range request of source {source.name}", faults)
    return RenderedRequest(
        method="GET", path=path, query=_query(asked.query, values), headers=_headers(source, values)
    )


def _checked(
    source: Source, given: Mapping[str, object], *, admitted: bool, at: datetime | None = None
) -> tuple[dict[str, Scalar], list[Fault]]:
    declared = source.request.params
    faults = [_unknown(name, given[name], tuple(declared)) for name in given if name not in declared]
    values: dict[str, Scalar] = {}
    for name, param in declared.items():
        value = given.get(name)
        relative = value is None and param.relative_default is not None
        value = param.default if value is None else value
        if value is None:
            if param.required:
                faults.append(Fault(field=f"params.{name}", value=None, problem="is required and missing"))
            continue
        if relative and admitted:
            continue  # a task has what it was admitted with: nothing moves under it
        try:
            if relative:
                moment = Moment(at=at or datetime.now(UTC), zone=source.timezone, schedule=source.schedule)
                values[name] = param.default_at(moment)
            else:
                values[name] = param.canonical(value) if admitted else param.coerce(value)
        except Unfit as unfit:
            faults.append(
                Fault(field=f"params.{name}", value=value, problem=unfit.problem, allowed=unfit.allowed)
            )
    return values, faults


def _unknown(name: object, value: object, declared: tuple[str, ...]) -> Fault:
    close = did_you_mean(str(name), declared)
    known = f"declared are {', '.join(declared)}" if declared else "the source declares none"
    hint = f"; did you mean {close!r}?" if close else ""
    return Fault(field=f"params.{name}", value=value, problem=f"is not a parameter: {known}{hint}")


def _template_faults(source: Source, template: str) -> Iterator[Fault]:
    problem = path_problem(template)
    if problem:
        yield Fault(field="path", value=template, problem=problem)
    declared = tuple(source.request.params)
    for name in placeholders(template):
        if name not in declared:
            yield Fault(
                field="path", value=name, problem="is not a parameter of the source", allowed=declared
            )


def _path(template: str, values: Mapping[str, Scalar]) -> str:
    filled = fill_text(template, values, quote=lambda text: quote(text, safe=""))
    encoded = quote(filled, safe=_PATH_SAFE) if isinstance(filled, str) else ""
    return f"/{encoded.removeprefix('/')}"


def _path_faults(template: str, rendered: str, values: Mapping[str, Scalar]) -> Iterator[Fault]:
    for name in dict.fromkeys(placeholders(template)):
        if text_of(values.get(name)) == "":
            yield Fault(
                field=f"params.{name}",
                value=values.get(name),
                problem="stands in the path: must have a value",
            )
    # A value of ".." would climb, and so might "x/../.." where a proxy decodes before it routes.
    segments = re.split(r"[/\\]", unquote(rendered))
    if "." in segments or ".." in segments:
        yield Fault(field="path", value=rendered, problem="must not hold the segments . or .. once filled")


def _query(
    declared: Mapping[str, Scalar | list[Scalar]], values: Mapping[str, Scalar]
) -> dict[str, tuple[str, ...]]:
    query: dict[str, tuple[str, ...]] = {}
    for name, value in declared.items():
        items = value if isinstance(value, list) else [value]
        filled = [fill_value(item, values) for item in items]
        texts = tuple(text_of(item) for item in filled if item is not ABSENT and item is not None)
        if texts:
            query[name] = texts
    return query


def _headers(source: Source, values: Mapping[str, Scalar]) -> dict[str, str]:
    filled = {name: fill_text(value, values) for name, value in source.request.headers.items()}
    return {name: value for name, value in filled.items() if isinstance(value, str)}


def _header_faults(headers: Mapping[str, str]) -> Iterator[Fault]:
    for name, value in headers.items():
        if has_control_characters(value):
            yield Fault(
                field=f"headers.{name}",
                value=value,
                problem="must not hold line breaks or other control characters",
            )
