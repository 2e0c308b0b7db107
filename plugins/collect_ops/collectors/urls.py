"""Texts that shall be URLs: read by yarl, or refused. Pure."""

from __future__ import annotations

from yarl import URL


def parse_url(text: str) -> URL:
    """The URL that a text is.

    Raises:
        ValueError: It is none.
    """
    try:
        return URL(text)
    except IndexError as error:  # yarl looks at the first letter of a host that has none: `http://[]@/`
        raise ValueError("Invalid URL: it names no host") from error
