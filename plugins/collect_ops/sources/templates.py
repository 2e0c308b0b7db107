"""Templates of a request.

`{name}` stands for a parameter, `{{name}}` for the text `{name}`; every other brace is text (a GraphQL query
or a regular expression can stand in a body as it is).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from collect_ops.sources.declaration import Json, Scalar

_TOKEN = re.compile(r"\{\{([A-Za-z_][A-Za-z0-9_]*)\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PLAIN = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class _Absent:
    """What a template gives that names a parameter without a value."""


ABSENT: Final = _Absent()


def escape(text: str) -> str:
    """The template that gives `text` as it is."""
    return _PLAIN.sub(r"{{\1}}", text)


def placeholders(text: str) -> Iterator[str]:
    """The parameter names in one template, in order."""
    return iter(_names(text))


@lru_cache(maxsize=1024)
def _names(text: str) -> tuple[str, ...]:
    # The same few templates come with every submission.
    return tuple(match[2] for match in _TOKEN.finditer(text) if match[2] is not None)


def placeholders_within(value: Json, field: str) -> Iterator[tuple[str, str]]:
    """Every (dotted field, parameter name) of the templates within a JSON-like value."""
    if isinstance(value, str):
        yield from ((field, name) for name in placeholders(value))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from placeholders_within(item, f"{field}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from placeholders_within(item, f"{field}.{index}")


def text_of(value: Scalar) -> str:
    """A parameter's value as text in an address or a header."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def fill_text(
    template: str, values: Mapping[str, Scalar], quote: Callable[[str], str] | None = None
) -> str | _Absent:
    """Fill a template.

    Args:
        template: The text.
        values: The parameters that have a value.
        quote: Applied to each parameter's text, not to the template's own.

    Returns:
        The text; ABSENT when it names a parameter that has no value.
    """
    names = _names(template)
    if not names and "{{" not in template:
        return template
    if any(name not in values for name in names):
        return ABSENT

    def replacement(match: re.Match[str]) -> str:
        if match[1] is not None:
            return f"{{{match[1]}}}"
        text = text_of(values[match[2]])
        return quote(text) if quote else text

    return _TOKEN.sub(replacement, template)


def fill_value(value: Json, values: Mapping[str, Scalar]) -> Json:
    """Fill every template within a JSON-like value; types are kept.

    A text that is nothing but `{name}` becomes the parameter's value with its type. A member or an item that
    names a parameter without a value is left out.
    """
    if isinstance(value, str):
        whole = _PLAIN.fullmatch(value)
        return values.get(whole[1], ABSENT) if whole else fill_text(value, values)
    if isinstance(value, Mapping):
        members = {key: fill_value(item, values) for key, item in value.items()}
        return {key: item for key, item in members.items() if item is not ABSENT}
    if isinstance(value, list | tuple):
        items = [fill_value(item, values) for item in value]
        return [item for item in items if item is not ABSENT]
    return value
