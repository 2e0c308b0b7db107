"""What a request's body must be for how it is written. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from collect_ops.kernel.errors import Fault
from collect_ops.sources.model import Source

_FORM = "application/x-www-form-urlencoded"


def body_faults(source: Source) -> Iterator[Fault]:
    """Where body, body_type and the header Content-Type do not go together."""
    request = source.request
    if request.method == "GET":
        if request.body_type != "json":
            yield Fault(
                field="request.body_type", value=request.body_type, problem="needs request.method POST"
            )
        return
    name, content_type = _content_type(source)
    if request.body_type == "form":
        yield from _form_faults(source)
        if content_type and not content_type.startswith(_FORM):
            problem = f"must be {_FORM}, or left out: request.body_type is form"
            yield Fault(field=f"request.headers.{name}", value=content_type, problem=problem)
    elif content_type.startswith(_FORM):
        problem = f"must be form: the header {name} says {_FORM}, and the body would be sent as JSON"
        yield Fault(field="request.body_type", value="json", problem=problem, allowed=("form",))
    elif isinstance(request.body, str) and content_type and "json" not in content_type:
        problem = f"is sent as JSON, in quotes, which is no {content_type}: allowed are JSON and request.body_type form"
        yield Fault(field="request.body", value=None, problem=problem)


def _content_type(source: Source) -> tuple[str, str]:
    for name, value in source.request.headers.items():
        if name.lower() == "content-type":
            return name, value.strip().lower()
    return "", ""


def _form_faults(source: Source) -> Iterator[Fault]:
    body = source.request.body
    if body is not None and not isinstance(body, Mapping):
        yield Fault(
            field="request.body", value=None, problem="must be an object of fields: body_type is form"
        )
        return
    for name, value in (body or {}).items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict | list):
                problem = "must be a text, a number, true or false, or a list of those: body_type is form"
                yield Fault(field=f"request.body.{name}", value=None, problem=problem)
                break


def redirected_post_faults(source: Source) -> Iterator[Fault]:
    """Whether what happens to a POST is declared of one."""
    request = source.request
    if request.method == "GET" and request.redirected_post != "get":
        yield Fault(
            field="request.redirected_post",
            value=request.redirected_post,
            problem="needs request.method POST",
        )
