"""The `Link` header (RFC 8288), and as servers write it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_BETWEEN_LINKS = re.compile(r"[\s,]*")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[/?]")
_BETWEEN_RELATIONS = re.compile(r"[\s,]+")


class LinkMalformed(ValueError):
    """A link to the next page is there, and its address cannot be told; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One link of a header.

    Args:
        target: The address, as it stands in the header (it may be relative).
        params: Its parameters, names in lower case.
        fault: What keeps the target from being an address for sure; None when nothing does.
    """

    target: str
    params: Mapping[str, str]
    fault: str | None = None

    @property
    def relations(self) -> frozenset[str]:
        """What it is to the page that was asked."""
        return frozenset(_BETWEEN_RELATIONS.split(self.params.get("rel", "").lower()))


def find_next(headers: Iterable[str]) -> Link | None:
    """The link with `rel="next"`; None when there is none.

    Args:
        headers: The values of all `Link` headers of the response.

    Raises:
        LinkMalformed: There is one whose address cannot be told. It is not the last page, so paging must not end.
    """
    malformed: Link | None = None
    for value in headers:
        for link in _links(value):
            # A link with an anchor speaks about another resource than the one that was asked.
            if "next" not in link.relations or "anchor" in link.params:
                continue
            if link.params.get("results", "").lower() == "false":
                return None  # Sentry names a next page behind the last one, and says that it holds nothing
            if link.fault is None:
                return link
            malformed = malformed or link
    if malformed is not None:
        raise LinkMalformed(malformed.fault)
    return None


def _links(value: str) -> Iterator[Link]:
    # By hand and not by a regular expression: the header is the server's, and this is linear in it.
    position = _skip(value, 0)
    while position < len(value):
        target, fault, position = _target(value, position)
        params, position = _params(value, position)
        yield Link(target=target, params=params, fault=fault)


def _skip(value: str, position: int) -> int:
    found = _BETWEEN_LINKS.match(value, position)
    return position if found is None else found.end()


def _target(value: str, position: int) -> tuple[str, str | None, int]:
    """The address of one link, what is wrong with it, and where its parameters begin."""
    fault = "an address that does not stand in < and >"
    if value[position] == "<":
        end = value.find(">", position)
        if end >= 0:
            return value[position + 1 : end].strip(), None, end + 1
        fault = "an address with < but without >"
    ends = [end for mark in ";<" if (end := value.find(mark, position + 1)) >= 0]
    end = min(ends, default=len(value))
    return value[position:end].strip(), fault, end


def _params(value: str, position: int) -> tuple[dict[str, str], int]:
    """The parameters of one link and where the next link begins."""
    if value[position : position + 1] == "<":
        return {}, position
    parts: list[list[str]] = [[]]
    quote, before = "", ""
    # An apostrophe that opens nothing is a letter like any other.
    last_apostrophe = value.rfind("'")
    while position < len(value):
        character = value[position]
        position += 1
        if quote and character == "\\":
            parts[-1].append(value[position : position + 1])
            position += 1
        elif character == quote:
            quote = ""
        elif quote:
            parts[-1].append(character)
        elif character == '"' or (character == "'" and before == "=" and position <= last_apostrophe):
            quote = character
        elif character == ",":
            following = _skip(value, position)
            if following == len(value) or value[following] == "<" or _ADDRESS.match(value, following):
                return _by_name(parts), following
            # A comma within a parameter that should stand in quotes.
            parts[-1].append(value[position - 1 : following])
            position = following
        elif character == ";":
            parts.append([])
        else:
            parts[-1].append(character)
        before = before if character.isspace() else character
    return _by_name(parts), position


def _by_name(parts: list[list[str]]) -> dict[str, str]:
    params: dict[str, str] = {}
    for name, _, text in ("".join(part).partition("=") for part in parts):
        # RFC 8288 3.3: only the first `rel` counts.
        params.setdefault(name.strip().lower(), text.strip())
    params.pop("", None)
    return params
