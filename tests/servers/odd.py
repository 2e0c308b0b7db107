"""A source's server that answers as some servers do: bytes of its own making, by path.

It parses just enough of a request to answer it, and writes what a library for servers would refuse to.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it arrived.

    Args:
        number: How many came to the path before it.
        target: The request line's, as it was spelled.
    """

    number: int
    method: str
    target: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


#: What answers the requests of a path.
Answering = Callable[[Asked], bytes]


def reply(
    body: str | bytes | Any,
    *headers: str,
    status: str = "200 OK",
    length: bool = True,
) -> bytes:
    """A response.

    Args:
        body: Bytes and texts are sent as they are, all else as JSON.
        headers: Whole lines, in this order, as often as given.
        status: Code and reason.
        length: Whether the body's length is announced; else the connection's end ends it.
    """
    raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [f"HTTP/1.1 {status}", *headers, "Connection: close"]
    if not any(line.lower().startswith("content-type:") for line in headers):
        lines.append("Content-Type: application/json")
    if length:
        lines.append(f"Content-Length: {len(raw)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def rows(first: int, count: int, **more: Any) -> dict[str, Any]:
    """A body with rows."""
    return {
        "rows": [{"id": number, "name": f"row {number}"} for number in range(first, first + count)],
        **more,
    }


class OddServer:
    """Answers each path as it is told.

    Args:
        answering: By path, without its leading slash. Other paths are not there.
        tls: Serve https.
    """

    def __init__(self, answering: Mapping[str, Answering], tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.answering = dict(answering)
        self.asked: defaultdict[str, list[Asked]] = defaultdict(list)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="odd-server", daemon=True)

    @property
    def base_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            writer.write(self._answer(line, headers, body))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    def _answer(self, line: str, headers: Mapping[str, str], body: bytes) -> bytes:
        method, target, _ = line.split(" ")
        url = urlsplit(target)
        path = url.path.removeprefix("/")
        asked = Asked(
            number=len(self.asked[path]),
            method=method,
            target=target,
            path=path,
            query=dict(parse_qsl(url.query)),
            headers=headers,
            body=body,
        )
        self.asked[path].append(asked)
        answer = self.answering.get(path)
        if answer is None:
            return reply({"error": f"nothing is at {path}"}, status="404 Not Found")
        return answer(asked)
