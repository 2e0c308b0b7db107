"""Conditional requests: what a page is known by, and what is asked with it (RFC 9110 sections 8.8 and 13). Pure.

A validator is only ever sent back to where it came from, with the very request that brought it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

import orjson

# RFC 9110 8.8.3. What is quoted otherwise, or not at all, is no entity tag; `*` would mean any.
_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,1000}"')
# RFC 9110 8.8.2.2: a date tells two contents apart only when it is at least a second before the answer's own.
_ONE_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validator:
    """What a page was known by when its rows landed, and what has to be known of it when it does not come again.

    Args:
        etag: Its entity tag, strong or weak.
        last_modified: When it changed last, as its server wrote it.
        rows: How many records it held.
        total: The source's total, when it named it.
        following: Where it says that paging goes on; None when it does not, or when paging counts rows.
        fingerprint: What its rows are known by, so that it is noticed when a page that does come has the same.
    """

    etag: str | None
    last_modified: str | None
    rows: int
    total: int | None
    following: dict[str, Any] | None
    fingerprint: bytes | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that ask for the page only if it has changed.

        One of both: If-None-Match wins over If-Modified-Since wherever it is understood (RFC 9110 13.1.3), and a server
        that went by the date all the same would call a page unchanged that changed twice in a second.
        """
        if self.etag is not None:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.last_modified or ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A request whose page may be known.

    Args:
        request: The request's fingerprint.
        validator: What its page is known by: as it was recalled when the page is unchanged, else as it came now; None
            when it may not be remembered.
    """

    request: bytes
    validator: Validator | None


Recall: TypeAlias = Callable[[bytes], Awaitable[Validator | None]]
"""What a request's page was known by when it landed; None when it is not known."""


def fingerprint(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None, who: tuple[str, str]
) -> bytes:
    """SHA-256 of what a server's answer depends on.

    Args:
        method: The method.
        url: The URL without credentials.
        headers: Headers that carry no secret.
        body: The body.
        who: Kind of authentication and user name: what one user is shown need not be what another is.
    """
    named = sorted((name.lower(), value) for name, value in headers.items())
    digest = None if body is None else hashlib.sha256(body).hexdigest()
    return hashlib.sha256(orjson.dumps([method, url, named, digest, who])).digest()


def etag_of(headers: Mapping[str, str]) -> str | None:
    """The entity tag of a response; None without one, or when what stands there is none."""
    text = headers.get("ETag", "").strip()
    return text if _ETAG.fullmatch(text) else None


def last_modified_of(headers: Mapping[str, str]) -> str | None:
    """The date of a response's last change; None without one, or when a change in that second might go unseen."""
    text = headers.get("Last-Modified", "").strip()
    changed, answered = _date(text), _date(headers.get("Date", ""))
    if changed is None or answered is None or answered - changed < _ONE_SECOND:
        return None
    return text


def contradicts(headers: Mapping[str, str], validator: Validator) -> bool:
    """Whether a 304 speaks of another content than the one that was asked about (RFC 9110 15.4.5)."""
    etag = etag_of(headers)
    if etag is None or validator.etag is None:
        return False
    # RFC 9110 8.8.3.2: If-None-Match compares weakly.
    return etag.removeprefix("W/") != validator.etag.removeprefix("W/")


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
