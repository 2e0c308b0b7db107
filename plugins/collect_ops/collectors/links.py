"""The `Link` header (RFC 8288). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def next_link(headers: Iterable[str]) -> str | None:
    """The address of `rel="next"`, as it stands in the header (it may be relative); None when there is none.

    Args:
        headers: The values of all `Link` headers of the response.
    """
    for value in headers:
        for target, params in _links(value):
            # A link with an anchor speaks about another resource than the one that was asked.
            if "next" in params.get("rel", "").lower().split() and "anchor" not in params:
                # Sentry names a next page behind the last one, and says that it holds nothing.
                return None if params.get("results", "").lower() == "false" else target
    return None


def _links(value: str) -> Iterator[tuple[str, dict[str, str]]]:
    # By hand and not by a regular expression: the header is the server's, and this is linear in it.
    position = 0
    while (start := value.find("<", position)) >= 0 and (end := value.find(">", start)) >= 0:
        params, position = _params(value, end + 1)
        yield value[start + 1 : end].strip(), params


def _params(value: str, position: int) -> tuple[dict[str, str], int]:
    """The parameters of one link and where the next link begins."""
    parts: list[list[str]] = [[]]
    quoted = False
    while position < len(value):
        character = value[position]
        position += 1
        if quoted and character == "\\":
            parts[-1].append(value[position : position + 1])
            position += 1
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            break
        elif character == ";" and not quoted:
            parts.append([])
        else:
            parts[-1].append(character)
    params: dict[str, str] = {}
    for name, _, text in ("".join(part).partition("=") for part in parts):
        # RFC 8288 3.3: only the first `rel` counts.
        params.setdefault(name.strip().lower(), text.strip())
    return params, position
