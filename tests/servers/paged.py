"""A source's server for tests: every paging style, authentication, and everything that goes wrong on the way.

In a test: `with PagedServer(rows=1000) as server: ...`; alone: `python -m tests.servers.paged --port 20080`.
It runs in a thread of its own, so that synchronous and asynchronous tests use it alike.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import secrets
import ssl
import threading
import time
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import parse_qsl, unquote_plus

import orjson
from aiohttp import web


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What the next request of a path gets instead of its answer.

    Args:
        status: Answered with this status; 0 means no status at all.
        headers: With these headers.
        body: With this body.
        reset_after: The connection is reset after so many bytes of a body that announces more.
        delay_s: Waits so long first.
    """

    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset_after: int | None = None
    delay_s: float = 0


RECORDED = web.RequestKey("recorded", Recorded)


class Held:
    """A request that waits until it is released; then it gets its usual answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._arrived = threading.Event()
        self._released = asyncio.Event()

    def wait(self, timeout_s: float = 20) -> None:
        """Return when the request has arrived."""
        if not self._arrived.wait(timeout_s):
            raise TimeoutError(f"the request to hold did not arrive within {timeout_s:g} s")

    def release(self) -> None:
        """Let it be answered."""
        self._loop.call_soon_threadsafe(self._released.set)

    async def hold(self) -> None:
        """The server's side."""
        self._arrived.set()
        await self._released.wait()


def row(number: int) -> dict[str, Any]:
    """Row `number`, always the same."""
    return {
        "id": number,
        "name": f"row {number}",
        "value": number / 2,
        "even": number % 2 == 0,
        "at": f"2024-01-{number % 28 + 1:02d}T{number % 24:02d}:00:00Z",
    }


#: The hour of row 0 at `/window`.
FIRST_HOUR = datetime(2024, 1, 30, tzinfo=UTC)


def hour(number: int) -> datetime:
    """The hour of a row, at `/window`."""
    return FIRST_HOUR + timedelta(hours=number)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def pages_only(matches: Callable[[Recorded], bool] = lambda _request: True) -> Callable[[Recorded], bool]:
    """Matches what is asked for its rows, and not the look at the total with which planning begins.

    That is a request for a first page like any other, so it is told by coming first: ask this of every request from the
    beginning of a task.
    """
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()

    def is_page(request: Recorded) -> bool:
        if not matches(request):
            return False
        key = request.path, tuple(sorted(request.query.items()))
        first = int(request.query.get("offset", 0)) == 0 and key not in seen
        seen.add(key)
        return not first

    return is_page


def basic(login: str, password: str) -> dict[str, str]:
    """The header that basic authentication sends."""
    return {"Authorization": "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()}


def _parsed(request: web.Request, body: bytes) -> Any:
    if request.content_type == "application/x-www-form-urlencoded":
        return dict(parse_qsl(body.decode()))
    return orjson.loads(body) if body else None


class PagedServer:
    """Serves `rows` rows.

    Args:
        rows: How many rows there are.
        cap: Largest page it gives, whatever is asked; None gives what is asked.
        total_header: Name of a header with the total; None sends none.
        total_in_body: Whether bodies hold `total`.
        gzip: Whether bodies are compressed for those who accept it.
        required_headers: 401 without these.
        required_query: 401 without these.
        delay_s: Waits so long before each answer.
        echo_key: Query parameter that links to the next page repeat, as careless servers do.
        oauth2: Client id and secret for which `/token` gives out tokens; 401 without one that is not revoked.
        etags: Answers carry an ETag: `strong`, `weak`, `body` (which is of no header; a 304 has none, then), or None; a
            request that names it gets 304.
        last_modified: Answers carry this Last-Modified; a request that names it and no ETag gets 304.
        tls: Serve https.
        port: 0 takes a free one.
        host: Address to listen on; nodes with network namespaces reach the bridge's only.
    """

    def __init__(
        self,
        *,
        rows: int = 100,
        cap: int | None = None,
        total_header: str | None = None,
        total_in_body: bool = True,
        gzip: bool = False,
        required_headers: Mapping[str, str] | None = None,
        required_query: Mapping[str, str] | None = None,
        delay_s: float = 0,
        echo_key: str | None = None,
        oauth2: tuple[str, str] | None = None,
        etags: str | None = None,
        last_modified: str | None = None,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
    ) -> None:
        self.rows = rows
        self.host = host
        self.cap = cap
        self.total_header = total_header
        self.total_in_body = total_in_body
        self.gzip = gzip
        self.required_headers = dict(required_headers or {})
        self.required_query = dict(required_query or {})
        self.delay_s = delay_s
        self.echo_key = echo_key
        self.oauth2 = oauth2
        self.issued: list[str] = []
        self.revoked: set[str] = set()
        self.token_answer: dict[str, Any] = {"token_type": "Bearer", "expires_in": 3600}
        self.etags = etags
        self.last_modified = last_modified
        self.changed: dict[int, dict[str, Any]] = {}
        self.port = port
        self.requests: list[Recorded] = []
        self.bytes_sent = 0
        self.under_way = 0
        self.most_under_way = 0
        self._tls = tls
        self._failures: defaultdict[str, deque[Failure]] = defaultdict(deque)
        self._chosen: list[tuple[Callable[[Recorded], bool], Failure]] = []
        self._held: list[tuple[Callable[[Recorded], bool], Held]] = []
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="paged-server", daemon=True)

    @property
    def base_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    def fail_next(self, path: str, *failures: Failure) -> None:
        """The next requests of `path` fail like this, one after the other."""
        self._failures[path].extend(failures)

    def fail_where(self, matches: Callable[[Recorded], bool], failure: Failure) -> None:
        """Every request that matches fails like this, until `mend`."""
        self._chosen.append((matches, failure))

    def mend(self) -> None:
        """Nothing fails any more."""
        self._failures.clear()
        self._chosen.clear()

    def hold_where(self, matches: Callable[[Recorded], bool]) -> Held:
        """The next request that matches waits until it is released; those after it do not."""
        assert self._loop is not None
        held = Held(self._loop)
        self._held.append((matches, held))
        return held

    def asked(self, path: str) -> list[Recorded]:
        """The requests of `path` so far."""
        return [request for request in self.requests if request.path == path]

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise TimeoutError("the test server did not start within 10 s")
        if self._failed:
            raise self._failed
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.__exit__)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failed = error
            raise
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(middlewares=[self._middleware], client_max_size=64 * 1024 * 1024)
        for path, handler in self._handlers():
            app.router.add_route("*", path, handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self.host, self.port, ssl_context=self._tls)
            await site.start()
            self.port = runner.addresses[0][1]
            self._ready.set()
            await self._stop.wait()
        finally:
            await runner.cleanup()

    def _handlers(self) -> Iterator[tuple[str, Any]]:
        yield "/offset", self._offset
        yield "/page", self._page
        yield "/cursor", self._cursor
        yield "/next", self._next
        yield "/link", self._link
        yield "/single", self._single
        yield "/select", self._select
        yield "/window", self._window
        yield "/edges", self._edges
        yield "/count", self._count
        yield "/ignores_limit", self._ignores_limit
        yield "/loop", self._loop_forever
        yield "/loop_empty", self._loop_empty
        yield "/grow", self._grow
        yield "/html", self._html
        yield "/truncated", self._truncated
        yield "/reset", self._reset
        yield "/huge", self._huge
        yield "/endless", self._endless
        yield "/bomb", self._bomb
        yield "/deep", self._deep
        yield "/strange", self._strange
        yield "/slow", self._slow
        yield "/redirect", self._redirect
        yield "/status/{status}", self._status
        yield "/raw", self._raw
        yield "/token", self._token

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        body = await request.read()
        recorded = Recorded(
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers=dict(request.headers),
            body=_parsed(request, body),
            at=time.monotonic(),
        )
        request[RECORDED] = recorded
        self.requests.append(recorded)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self._hold(recorded)
            await asyncio.sleep(self.delay_s)
            if failure := self._failure_of(recorded):
                return await self._fail(request, failure)
            if not self._allowed(request):
                return web.json_response({"error": "who are you?"}, status=401)
            response: web.StreamResponse = await handler(request)
            return response
        finally:
            self.under_way -= 1

    async def _hold(self, recorded: Recorded) -> None:
        for entry in self._held:
            matches, held = entry
            if matches(recorded):
                self._held.remove(entry)
                await held.hold()
                return

    def _failure_of(self, recorded: Recorded) -> Failure | None:
        if failures := self._failures[recorded.path]:
            return failures.popleft()
        return next((failure for matches, failure in self._chosen if matches(recorded)), None)

    def revoke(self) -> None:
        """No token that was given out is good any more."""
        self.revoked.update(self.issued)

    def _bears_a_token(self, request: web.Request) -> bool:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return token in self.issued and token not in self.revoked

    def _allowed(self, request: web.Request) -> bool:
        if self.oauth2 is not None and request.path != "/token" and not self._bears_a_token(request):
            return False
        return all(
            request.headers.get(name) == value for name, value in self.required_headers.items()
        ) and all(request.query.get(name) == value for name, value in self.required_query.items())

    async def _fail(self, request: web.Request, failure: Failure) -> web.StreamResponse:
        await asyncio.sleep(failure.delay_s)
        if failure.reset_after is not None:
            return await self._reset_after(request, failure.reset_after)
        return web.Response(status=failure.status, headers=failure.headers, body=failure.body)

    def _param(self, request: web.Request, name: str, default: Any = None) -> Any:
        body = request[RECORDED].body  # not of the request that came last: they overlap
        if request.method == "POST" and isinstance(body, dict) and name in body:
            return body[name]
        return request.query.get(name, default)

    def _cut(self, start: int, size: int) -> list[dict[str, Any]]:
        return [
            {**row(number), **self.changed.get(number, {})}
            for number in range(max(0, start), min(self.rows, start + size))
        ]

    def _capped(self, size: int) -> int:
        return size if self.cap is None else min(size, self.cap)

    def _answer(
        self, request: web.Request, document: Any, headers: Mapping[str, str] | None = None
    ) -> web.Response:
        headers = dict(headers or {})
        if isinstance(document, dict) and self.total_in_body:
            document = {**document, "total": self.rows}
        if self.total_header:
            headers[self.total_header] = str(self.rows)
        body = orjson.dumps(document)
        headers |= self._validators(body, headers)
        if self._is_known(request, headers):
            named = {"ETag": headers["ETag"]} if self.etags == "body" else headers
            return web.Response(status=304, headers=named)
        if self.gzip and "gzip" in request.headers.get("Accept-Encoding", ""):
            packer = zlib.compressobj(wbits=31)
            body = packer.compress(body) + packer.flush()
            headers["Content-Encoding"] = "gzip"
        self.bytes_sent += len(body)
        return web.Response(body=body, headers=headers, content_type="application/json")

    def _validators(self, body: bytes, headers: Mapping[str, str]) -> dict[str, str]:
        found: dict[str, str] = {}
        if self.etags:
            beside = b"" if self.etags == "body" else repr(sorted(headers.items())).encode()
            tag = hashlib.blake2b(body + beside, digest_size=8).hexdigest()
            found["ETag"] = f'{"W/" if self.etags == "weak" else ""}"{tag}"'
        if self.last_modified:
            found["Last-Modified"] = self.last_modified
        return found

    def _is_known(self, request: web.Request, validators: Mapping[str, str]) -> bool:
        """RFC 9110 13.2.2: If-None-Match, compared weakly, wins over If-Modified-Since."""
        named = request.headers.get("If-None-Match")
        if named is not None:
            return "ETag" in validators and named.removeprefix("W/") == validators["ETag"].removeprefix("W/")
        since = request.headers.get("If-Modified-Since")
        return since is not None and since == validators.get("Last-Modified")

    async def _token(self, request: web.Request) -> web.Response:
        """RFC 6749 4.4: a token for client credentials, in a Basic header or in the body."""
        form = request[RECORDED].body or {}
        given = (form.get("client_id"), form.get("client_secret"))
        if "Authorization" in request.headers:
            pair = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
            login, _, password = pair.partition(":")
            given = (unquote_plus(login), unquote_plus(password))
        if form.get("grant_type") != "client_credentials":
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        if given != self.oauth2:
            return web.json_response({"error": "invalid_client"}, status=401)
        self.issued.append(f"token-{len(self.issued)}-{secrets.token_hex(8)}")
        return web.json_response({"access_token": self.issued[-1], **self.token_answer})

    async def _offset(self, request: web.Request) -> web.Response:
        offset, limit = int(self._param(request, "offset", 0)), int(self._param(request, "limit", 100))
        return self._answer(request, {"rows": self._cut(offset, self._capped(limit))})

    async def _page(self, request: web.Request) -> web.Response:
        size = self._capped(int(self._param(request, "size", 100)))
        number = int(self._param(request, "page", 1)) - 1
        return self._answer(request, {"rows": self._cut(number * size, size)})

    async def _cursor(self, request: web.Request) -> web.Response:
        size = self._capped(int(self._param(request, "limit", 30)))
        token = self._param(request, "cursor", "from-0")
        start = int(str(token).removeprefix("from-"))
        following = f"from-{start + size}" if start + size < self.rows else None
        return self._answer(request, {"rows": self._cut(start, size), "next_cursor": following})

    def _following(self, request: web.Request, path: str) -> tuple[list[dict[str, Any]], str | None]:
        size = self._capped(int(self._param(request, "limit", 30)))
        start = int(self._param(request, "start", 0))
        query = f"?start={start + size}&limit={size}"
        if self.echo_key and self.echo_key in request.query:
            query += f"&{self.echo_key}={request.query[self.echo_key]}"
        return self._cut(start, size), f"{path}{query}" if start + size < self.rows else None

    async def _next(self, request: web.Request) -> web.Response:
        rows, following = self._following(request, f"{self.base_url}/next")
        return self._answer(request, {"rows": rows, "next": following})

    async def _link(self, request: web.Request) -> web.Response:
        rows, following = self._following(request, "/link")
        links = '</link?start=0>; rel="first"' + (f', <{following}>; rel="next"' if following else "")
        return self._answer(request, rows, {"Link": links})

    async def _single(self, request: web.Request) -> web.Response:
        return self._answer(request, {"rows": self._cut(0, self.rows)})

    async def _select(self, request: web.Request) -> web.Response:
        """The rows of a list of ids (`ids=1,2,3`), from one id to another, inclusive (`first=1&last=3`), or all."""
        if ids := self._param(request, "ids"):
            chosen = [int(one) for one in str(ids).split(",")]
        else:
            first, last = (
                int(self._param(request, "first", 0)),
                int(self._param(request, "last", self.rows - 1)),
            )
            chosen = list(range(first, last + 1))
        return self._chosen_rows(request, [number for number in chosen if 0 <= number < self.rows])

    def _chosen_rows(self, request: web.Request, chosen: list[int]) -> web.Response:
        """Those rows, or the part of them that `offset` and `limit` ask for."""
        offset = int(self._param(request, "offset", 0))
        limit = int(self._param(request, "limit", len(chosen)))
        rows = [row(number) for number in chosen[offset : offset + limit]]
        return self._answer(request, {"rows": rows, "matching": len(chosen)})

    async def _window(self, request: web.Request) -> web.Response:
        """The rows of `start` to `end`, a row an hour from `FIRST_HOUR`; `end` is counted in with `closed=1`."""
        start, end = (_moment(self._param(request, name)) for name in ("start", "end"))
        if len(self._param(request, "end")) == 10 and self._param(request, "closed"):
            end += timedelta(hours=23)  # of a day that is counted in, all of it
        chosen = [
            number
            for number in range(self.rows)
            if start <= hour(number)
            and (hour(number) < end or (self._param(request, "closed") and hour(number) == end))
        ]
        return self._chosen_rows(request, chosen)

    async def _edges(self, request: web.Request) -> web.Response:
        """The least and the greatest id and hour there are; null when there are no rows."""
        last = self.rows - 1
        edges = {"low": 0, "high": last, "first": hour(0).isoformat(), "last": hour(last).isoformat()}
        return self._answer(request, edges if self.rows else dict.fromkeys(edges))

    async def _count(self, request: web.Request) -> web.Response:
        return self._answer(request, {"count": self.rows})

    async def _ignores_limit(self, request: web.Request) -> web.Response:
        return self._answer(request, {"rows": self._cut(0, self.rows)})

    async def _loop_forever(self, request: web.Request) -> web.Response:
        return self._answer(
            request, {"rows": self._cut(0, 2), "next": "/loop?again=1", "next_cursor": "same"}
        )

    async def _loop_empty(self, request: web.Request) -> web.Response:
        number = int(request.query.get("n", 0)) + 1
        return self._answer(request, {"rows": [], "next": f"/loop_empty?n={number}"})

    async def _grow(self, request: web.Request) -> web.Response:
        number = int(request.query.get("n", 0)) + 1
        return self._answer(request, {"rows": self._cut(0, 1), "next": f"/grow?n={number}"})

    async def _html(self, request: web.Request) -> web.Response:
        return web.Response(
            text="<!DOCTYPE html>\n<html><body>Please log in</body></html>", content_type="text/html"
        )

    async def _truncated(self, request: web.Request) -> web.Response:
        return web.Response(body=b'{"rows": [{"id": 1}, {"id"', content_type="application/json")

    async def _reset(self, request: web.Request) -> web.StreamResponse:
        return await self._reset_after(request, 1000)

    async def _reset_after(self, request: web.Request, size: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = size + 1000
        await response.prepare(request)
        await response.write(b"[" + b" " * (size - 1))
        assert request.transport is not None
        request.transport.abort()
        return response

    async def _huge(self, request: web.Request) -> web.StreamResponse:
        """Announces 10 GB."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = 10 * 1024**3
        return await self._pour(request, response)

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        """Announces nothing and sends 10 GB."""
        return await self._pour(request, web.StreamResponse(headers={"Content-Type": "application/json"}))

    async def _pour(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        await response.prepare(request)
        piece = b" " * (256 * 1024)
        for _ in range(10 * 1024**3 // len(piece)):
            await response.write(piece)
            self.bytes_sent += len(piece)
        return response

    async def _bomb(self, request: web.Request) -> web.StreamResponse:
        """Ten gigabytes of blanks as gzip."""
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Content-Encoding": "gzip"}
        )
        await response.prepare(request)
        packer, piece = zlib.compressobj(level=9, wbits=31), b" " * (16 * 1024 * 1024)
        for _ in range(10 * 1024**3 // len(piece)):
            packed = packer.compress(piece)
            await response.write(packed)
            self.bytes_sent += len(packed)
        return response

    async def _deep(self, request: web.Request) -> web.Response:
        depth = int(request.query.get("depth", 1000))
        return web.Response(body=b"[" * depth + b"]" * depth, content_type="application/json")

    async def _strange(self, request: web.Request) -> web.Response:
        """JSON that fits no PostgreSQL text: a lone surrogate, a NUL; and an integer beyond 64 bits."""
        rows = rb'{"id":1,"name":"\ud800"},{"id":2,"name":"a\u0000b"},{"id":123456789012345678901234567890}'
        body = b'{"rows":[' + rows + b"]}"
        return web.Response(body=body, content_type="application/json")

    async def _slow(self, request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.query.get("s", 5)))
        return self._answer(request, {"rows": []})

    async def _redirect(self, request: web.Request) -> web.Response:
        return web.Response(
            status=int(request.query.get("status", 302)),
            headers={"Location": request.query.get("to", "/single")},
        )

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response({"error": "as asked"}, status=int(request.match_info["status"]))

    async def _raw(self, request: web.Request) -> web.Response:
        """What the request says: `body`, `type`."""
        return web.Response(
            body=request.query.get("body", "").encode(),
            headers={"Content-Type": request.query.get("type", "application/json")},
        )


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--cap", type=int)
    parser.add_argument("--gzip", action="store_true")
    options = parser.parse_args()
    with PagedServer(rows=options.rows, cap=options.cap, gzip=options.gzip, port=options.port) as server:
        print(f"serving {server.rows} rows on {server.base_url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
