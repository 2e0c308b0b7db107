"""Texts that shall be URLs: read by yarl, or refused; path and query stay as they are spelled. Pure.

A signed link is signed as it is spelled. `URL(text)` writes `%2F` in a query as `/` and `%7E` as `~`, and the signature
does not hold any more.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_plus

from yarl import URL

# What must not stand in a request line, or means something else there; the rest goes as it came, like in browsers.
_ILLEGAL_IN_PATH = re.compile("[^!$-;=@-\\[\\]_a-z|~%]+")
_ILLEGAL_IN_QUERY = re.compile("[^!$-;=?-\\[\\]^_`a-z{|}~%]+")
_DOTS = re.compile(r"(?:^|/)\.{1,2}(?:/|$)")
_STRAY_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
# No server takes a longer one, and reading one holds up everything else.
_MOST_CHARS = 64 * 1024
_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_url(text: str) -> URL:
    """The URL that a text is, absolute or relative, without fragment and without the port that its scheme has anyway.

    Raises:
        ValueError: It is none.
    """
    if len(text) > _MOST_CHARS:
        raise ValueError(f"longer than {_MOST_CHARS} characters")
    try:
        # Both, since only the first reads a host as everybody does, and only the second leaves the rest alone.
        read, spelled = URL(text), URL(text, encoded=True)
    except IndexError as error:  # yarl looks at the first letter of a host that has none: `http://[]@/`
        raise ValueError("Invalid URL: it names no host") from error
    if read.explicit_port is not None and read.explicit_port == _DEFAULT_PORTS.get(read.scheme):
        read = read.with_port(None)
    path = read.raw_path  # without its segments . and ..
    if path and not _DOTS.search(spelled.raw_path):
        path = _legal(spelled.raw_path, _ILLEGAL_IN_PATH)
    query = _legal(spelled.raw_query_string, _ILLEGAL_IN_QUERY)
    scheme = f"{read.scheme}:" if read.scheme else ""
    authority = f"//{read.raw_authority}" if read.raw_authority else ""
    return URL(f"{scheme}{authority}{path}{query and f'?{query}'}", encoded=True)


def with_query(url: URL, query: str) -> URL:
    """An absolute URL with another query, which is encoded as it shall be sent."""
    bare = URL.build(scheme=url.scheme, authority=url.raw_authority, path=url.raw_path, encoded=True)
    return URL(f"{bare}?{query}", encoded=True) if query else bare


def query_pairs(url: URL) -> list[tuple[str, str, str]]:
    """The pairs of a query: name, value, and both as they are spelled."""
    pairs = []
    for pair in url.raw_query_string.split("&"):
        name, _, value = pair.partition("=")
        pairs.append((unquote_plus(name), unquote_plus(value), pair))
    return pairs


def _legal(text: str, illegal: re.Pattern[str]) -> str:
    text = illegal.sub(lambda found: quote(found[0], safe=""), text)
    return _STRAY_PERCENT.sub("%25", text)
