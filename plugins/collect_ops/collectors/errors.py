"""What can go wrong between us and a source's server. One class a case.

`url` is always the masked one: it may be logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from collect_ops.kernel.errors import CollectOpsError, Permanent, Transient, Unanswered

#: Statuses by which a gateway says that what stands behind it does not answer.
_GATEWAY = frozenset({502, 503, 504})


class HostFault(StrEnum):
    """What an error says about the host: `down`: nobody answers there; `sick`: it answers that it cannot."""

    DOWN = "down"
    SICK = "sick"


class CollectorError(CollectOpsError):
    """Base of the errors of collecting.

    Args:
        url: The masked URL that was asked.
        message: What is wrong, and what would be right.
    """

    #: Set when it counts against what was asked.
    host_fault: HostFault | None = None
    #: The answer that it speaks of, for who decides whether it is one; never shown.
    answer: object = None
    #: Whether no connection to the source's own host could be made, which counts against all that is asked of it.
    unconnected = False

    def __init__(self, url: str, message: str) -> None:
        self.url = url
        super().__init__(f"{url}: {message}")


class HostUnreachable(CollectorError, Unanswered):
    """No connection: the name does not resolve, nobody listens, or TLS could not be set up.

    Args:
        reason: Why.
        elsewhere: It is another host than the connection's, that a redirect or a next link leads to, or that gives out
            tokens.
    """

    host_fault = HostFault.DOWN

    def __init__(self, url: str, reason: str, *, elsewhere: bool = False) -> None:
        self.reason = reason
        self.unconnected = not elsewhere
        super().__init__(url, f"cannot connect: {reason}; check the host and port of the connection")


class RequestTimedOut(CollectorError, Unanswered):
    """A time-out of the source's `timeouts` passed."""

    host_fault = HostFault.DOWN

    def __init__(self, url: str, limit: str, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self.unconnected = limit == "connect_s"
        super().__init__(url, f"no answer in time: timeouts.{limit} is {seconds:g} s")


class ConnectionBroken(CollectorError, Unanswered):
    """The connection ended before the answer did, or what came is not HTTP."""

    host_fault = HostFault.DOWN

    def __init__(self, url: str, reason: str) -> None:
        self.reason = reason
        super().__init__(url, f"the answer broke off: {reason}")


class TruncatedBody(CollectorError, Transient):
    """The body is the beginning of a JSON document."""

    host_fault = HostFault.SICK

    def __init__(self, url: str, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        super().__init__(url, f"the JSON ends in the middle, after {size_bytes} bytes")


class ServerFailed(CollectorError, Transient):
    """A status that says: later, perhaps (408, 425, 5xx)."""

    def __init__(self, url: str, status: int, words: str) -> None:
        self.status = status
        if status >= 500:
            self.host_fault = HostFault.DOWN if status in _GATEWAY else HostFault.SICK
        super().__init__(url, f"answered {status}{_said(words)}")


class HostBusy(CollectorError, Transient):
    """The host asks for patience: 429, another refusal with a time to wait, or what `retry_when` calls that.

    Args:
        retry_after_s: Seconds the host asks to wait; None when it named none.
        words: The server's own words, masked.
        named: What of `retry_when` the answer meets, in words.
    """

    def __init__(
        self, url: str, status: int, retry_after_s: float | None, *, words: str = "", named: str = ""
    ) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        self.words = words
        if status >= 500:
            self.host_fault = HostFault.DOWN if status in _GATEWAY else HostFault.SICK
        when = f" (retry_when: {named})" if named else ""
        #: What it says, without the URL: it is what all tasks of the host wait for.
        self.reason = f"answered {status}{when}{_wait(retry_after_s)}{_said(words)}"
        super().__init__(url, f"{self.reason}; limits.requests_per_s and limits.concurrency slow us down")


class NotReady(CollectorError, Transient):
    """The answer is not there yet (202, or what `retry_when` calls that); others of the host go on.

    Args:
        retry_after_s: Seconds the server asks to wait; None when it named none.
        words: The server's own words, masked.
        named: What of `retry_when` the answer meets, in words.
    """

    def __init__(
        self, url: str, status: int, retry_after_s: float | None, *, words: str = "", named: str = ""
    ) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        self.words = words
        when = f" (retry_when: {named})" if named else ": not ready"
        super().__init__(url, f"answered {status}{when}{_wait(retry_after_s)}{_said(words)}")


class HostHeld(CollectorError, Transient):
    """Nothing is sent to the host for now, by nobody: the attempt ends, unfinished and not failed, and goes on later.

    Args:
        reason: What is held, why, and when it goes on.
        probed: The request was let through to try its endpoint, and was not answered.
    """

    deferred = True

    def __init__(self, url: str, reason: str, *, probed: bool = False) -> None:
        self.url = url
        self.reason = reason
        self.probed = probed
        # Not the URL: it is what the tasks of a host wait for, whatever they ask it.
        CollectOpsError.__init__(self, reason)


class AuthenticationRefused(CollectorError, Permanent):
    """401 or 403."""

    def __init__(
        self, url: str, status: int, connection: str, auth: str, *, sent: bool, words: str = ""
    ) -> None:
        self.status = status
        self.connection = connection
        self.auth = auth
        self.credentials_sent = sent
        if not sent:
            hint = "credentials were not sent, because scheme, host or port differ from the connection's"
        elif auth == "none":
            hint = "the source says auth.type none: allowed are none, basic, bearer, api_key"
        else:
            hint = f"check login and password of the connection and the source's auth (type {auth})"
        super().__init__(url, f"answered {status}, connection {connection!r}: {hint}{_said(words)}")


class CredentialsMissing(CollectorError, Permanent):
    """The source authenticates, but its connection lacks what that needs."""

    def __init__(self, url: str, connection: str, auth: str, field: str) -> None:
        self.connection = connection
        self.field = field
        super().__init__(
            url, f"auth.type {auth}: it needs the {field} of connection {connection!r}, which is empty"
        )


class TokenUrlRefused(CollectorError, Permanent):
    """Client id and secret do not go there.

    Args:
        reason: Why not.
    """

    def __init__(self, url: str, connection: str, reason: str) -> None:
        self.connection = connection
        self.reason = reason
        super().__init__(url, f"the secret of connection {connection!r} is not sent there: {reason}")


class TokenRefused(CollectorError, Permanent):
    """The token endpoint says no (RFC 6749 section 5.2).

    Args:
        code: Its error code (`invalid_client`), or what it answered instead of one.
        description: Its words, masked.
    """

    def __init__(self, url: str, connection: str, code: str, description: str) -> None:
        self.connection = connection
        self.code = code
        said = f" ({description})" if description else ""
        super().__init__(
            url,
            f"no token for connection {connection!r}: {code}{said}; check its login and password (client id and "
            "secret), and the source's auth: scope, audience, client_auth",
        )


class TokenServerFailed(CollectorError, Transient):
    """The token endpoint cannot now."""

    def __init__(self, url: str, status: int, code: str) -> None:
        self.status = status
        self.code = code
        super().__init__(url, f"the token endpoint answered {status}{code and f', {code}'}")


class TokenUnusable(CollectorError, Permanent):
    """What the token endpoint gave is no token.

    Args:
        field: What is wrong in its answer.
        gave: What stands there, in words: the answer may hold a secret.
        allowed: What may.
    """

    def __init__(self, url: str, field: str, gave: str, allowed: str) -> None:
        self.field = field
        self.gave = gave
        super().__init__(url, f"the token endpoint's {field} is {gave}; allowed: {allowed}")


class UrlNotFound(CollectorError, Permanent):
    """404 or 410."""

    def __init__(self, url: str, status: int, words: str) -> None:
        self.status = status
        super().__init__(url, f"answered {status}: nothing is there; check request.path{_said(words)}")


class RequestRefused(CollectorError, Permanent):
    """Another 4xx, or a status that no retry mends."""

    def __init__(self, url: str, status: int, words: str) -> None:
        self.status = status
        super().__init__(url, f"answered {status}: the request was refused{_said(words)}")


class NotModifiedUnasked(CollectorError, Permanent):
    """304 to a request that did not ask whether anything has changed."""

    def __init__(self, url: str) -> None:
        super().__init__(
            url,
            "answered 304 (not modified), but neither If-None-Match nor If-Modified-Since was sent: there is nothing "
            "that it could be unchanged from; check what stands between us and the server, such as a cache",
        )


class RedirectRefused(CollectorError, Permanent):
    """A redirect without a usable address, or too many of them."""

    def __init__(self, url: str, reason: str) -> None:
        self.reason = reason
        super().__init__(url, reason)


class UrlRefused(CollectorError, Permanent):
    """A URL that is not fetched whatever it answers: scheme, host or form."""

    def __init__(self, url: str, reason: str) -> None:
        self.reason = reason
        super().__init__(url, f"{reason}; allowed are http:// and https:// URLs with a host")


class AddressRefused(CollectorError, Permanent):
    """The host is, or resolves to, an address that is not asked.

    Args:
        host: The host as it stands in the URL.
        address: The address it stands for.
        kind: What kind of address that is (`loopback`).
        allowable: Whether `allow_private_networks` of the connection would allow it.
        own: Whether that setting is all that is missing; else the connection has it, and of this machine only what it
            names itself is asked.
    """

    def __init__(
        self, url: str, host: str, address: str, kind: str, *, allowable: bool, own: bool = True
    ) -> None:
        self.host = host
        self.address = address
        self.kind = kind
        self.allowable = allowable
        self.own = own
        what = f"host {host!r} is the {kind} address {address}"
        rule = (
            'allowed only when the connection says so: extra {"allow_private_networks": true}'
            if allowable
            else "never allowed"
        )
        if not own:
            rule = "of this machine only the host and port are asked that the connection itself names"
        super().__init__(url, f"{what}: {rule}")


class CertificateRefused(CollectorError, Permanent):
    """The server's TLS certificate does not hold."""

    def __init__(self, url: str, reason: str) -> None:
        self.reason = reason
        super().__init__(url, f"the TLS certificate does not hold: {reason}")


class EncodingUnknown(CollectorError, Permanent):
    """A Content-Encoding nobody asked for."""

    def __init__(self, url: str, encoding: str, allowed: Sequence[str]) -> None:
        self.encoding = encoding
        super().__init__(
            url, f"the body is encoded as {encoding!r}; allowed: {', '.join(allowed)}, three of them at most"
        )


class TooManyGzipMembers(CollectorError, Permanent):
    """A gzip body in more parts than any server makes; reading stopped there."""

    def __init__(self, url: str, limit: int) -> None:
        self.limit = limit
        super().__init__(url, f"the gzip body has more than {limit:,} members")


class PageTooLarge(CollectorError, Permanent):
    """The (decompressed) body is over the limit; reading stopped there."""

    def __init__(self, url: str, limit_bytes: int, announced_bytes: int | None) -> None:
        self.limit_bytes = limit_bytes
        self.announced_bytes = announced_bytes
        size = "goes on" if announced_bytes is None else f"is announced with {announced_bytes} bytes"
        super().__init__(
            url,
            f"the body {size}, over limits.max_page_bytes {limit_bytes}; ask for smaller pages or raise it",
        )


class NotJson(CollectorError, Permanent):
    """The body is not JSON.

    Args:
        content_type: As the server named it.
        beginning: The first 80 characters of the body.
        problem: What the parser says.
    """

    def __init__(self, url: str, content_type: str, beginning: str, problem: str) -> None:
        self.content_type = content_type
        self.beginning = beginning
        self.problem = problem
        super().__init__(
            url,
            f"JSON is due, but {content_type or 'no content type'} came: {problem}; it begins {beginning!r}",
        )


class NestedTooDeep(CollectorError, Permanent):
    """The document nests deeper than the source's limit."""

    def __init__(self, url: str, max_depth: int) -> None:
        self.max_depth = max_depth
        super().__init__(url, f"the JSON nests deeper than limits.max_depth {max_depth}")


class RecordsNotAList(CollectorError, Permanent):
    """The source's `records`, or its `select`, does not give a list.

    Args:
        hint: What may be declared, where that is what the API means.
    """

    def __init__(
        self, url: str, expression: str, gave: str, *, field: str = "records", hint: str = ""
    ) -> None:
        self.field = field
        self.expression = expression
        self.gave = gave
        super().__init__(url, f"{field} {expression!r} must give a list, but gives {gave}{hint}")


class ExpressionFailed(CollectorError, Permanent):
    """A JMESPath of the source cannot be applied to the body."""

    def __init__(self, url: str, field: str, expression: str, reason: str) -> None:
        self.field = field
        self.expression = expression
        super().__init__(url, f"{field} {expression!r} cannot be applied: {reason}")


class PagingValueUnusable(CollectorError, Permanent):
    """What stands where the next page's cursor or address is due cannot be one."""

    def __init__(self, url: str, field: str, gave: str, allowed: str) -> None:
        self.field = field
        self.gave = gave
        super().__init__(url, f"paging.{field} gives {gave}; allowed: {allowed}")


class NextPageMissing(CollectorError, Permanent):
    """A page says that there are more rows, and where they are is not found: the declaration looks elsewhere."""

    def __init__(self, url: str, place: str) -> None:
        self.place = place
        super().__init__(
            url,
            f"the page says that there are more rows (has_more), and {place} names no next page; where it is the last "
            "one all the same, declare end: [{body: '…'}] with what tells it",
        )


class PageTooLong(CollectorError, Permanent):
    """More rows came than were asked for: arithmetic paging would land rows twice."""

    def __init__(self, url: str, asked: int, got: int) -> None:
        self.asked = asked
        self.got = got
        super().__init__(
            url, f"{got} rows came where {asked} were asked for: the server ignores the page's size"
        )


class PagingLoop(CollectorError, Permanent):
    """Paging does not come to an end: the next page is one that was fetched before, or pages stay empty."""

    def __init__(self, url: str, reason: str) -> None:
        self.reason = reason
        super().__init__(url, f"paging goes round in circles: {reason}")


class PageNotThere(CollectorError, Permanent):
    """A page after the first is refused: that may be how the source says the end, or a fault of the request."""

    def __init__(self, url: str, status: int, page: int, rows: int, words: str) -> None:
        self.status = status
        self.page = page
        self.rows = rows
        super().__init__(
            url,
            f"answered {status} to page {page + 1}, after {rows:,} rows; where that means that there are no more, "
            f"declare end: [{{status: [{status}]}}]{_said(words)}",
        )


class ResumeRefused(CollectorError, Permanent):
    """The place where a shard was to go on is not there any more: a cursor or a link has expired."""

    def __init__(self, url: str, status: int, page: int) -> None:
        self.status = status
        self.page = page
        super().__init__(
            url, f"answered {status} where page {page + 1} was to go on: the cursor or link has expired"
        )


class EqualPage(CollectorError, Permanent):
    """A page holds the rows of an earlier one: paging does not get on, and rows would land twice.

    Args:
        parameter: What the source seems to ignore.
        page: The page's number.
        earlier: The page that it equals, as far as that is known.
    """

    def __init__(self, url: str, parameter: str, page: int, earlier: str) -> None:
        self.parameter = parameter
        self.page = page
        self.earlier = earlier
        super().__init__(
            url,
            f"page {page + 1} holds the rows of {earlier}: the source seems to ignore {parameter}, or repeats a page; "
            "where that is meant, declare paging.equal_pages: allow, or end when the last page is repeated for ever",
        )


class TooManyPages(CollectorError, Permanent):
    """More pages than the source's limit."""

    def __init__(self, url: str, max_pages: int) -> None:
        self.max_pages = max_pages
        super().__init__(url, f"more than limits.max_pages {max_pages} pages")


class PositionUnusable(CollectorError, Permanent):
    """A stored position does not belong to how the source pages."""

    def __init__(self, url: str, field: str, value: object, allowed: str) -> None:
        self.field = field
        self.value = value
        self.allowed = allowed
        super().__init__(url, f"cannot resume: position.{field} is {value!r}; allowed: {allowed}")

    def at(self, url: str) -> PositionUnusable:
        """The same, with the URL that the one who raised it did not know."""
        return PositionUnusable(url, self.field, self.value, self.allowed)


def _said(words: str) -> str:
    return f"; it says {words!r}" if words else ""


def _wait(retry_after_s: float | None) -> str:
    return "" if retry_after_s is None else f" and asks to wait {retry_after_s:g} s"
