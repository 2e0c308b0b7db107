"""A source's server that repeats what it is sent, in every way in which a server can."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import quopri
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Self
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlsplit

#: What `/ok` and whoever has got over its failure serve.
ROWS = [{"id": number, "name": f"row {number}"} for number in range(5)]


def answer(status: str, body: str | bytes = "", **headers: str) -> bytes:
    """An HTTP response; headers are given as `content_type`."""
    raw = body if isinstance(body, bytes) else body.encode()
    fields = {
        "content-type": "application/json",
        **{name.replace("_", "-"): v for name, v in headers.items()},
    }
    if not {"transfer-encoding", "content-length"} & fields.keys():
        fields["content-length"] = str(len(raw))
    lines = [
        f"HTTP/1.1 {status}",
        *(f"{name}: {value}" for name, value in fields.items()),
        "connection: close",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def page(**more: object) -> str:
    """A page that holds all rows."""
    return json.dumps({"rows": ROWS, "total": len(ROWS), **more})


def _slashed(text: str) -> str:
    escaped = json.dumps({"error": text}).replace("/", "\\/")
    return escaped.replace("&", "\\u0026").replace("<", "\\u003c")


def _lower(text: str) -> str:
    return "".join(f"%{byte:02x}" if not chr(byte).isalnum() else chr(byte) for byte in text.encode())


#: How what was heard is repeated, by path.
WAYS: dict[str, Callable[[str], bytes]] = {
    "json": lambda text: answer("400 No", json.dumps({"error": text}, ensure_ascii=False)),
    "json_escaped": lambda text: answer("422 No", _slashed(text)),
    "json_twice": lambda text: answer("400 No", json.dumps({"error": json.dumps({"sent": text})})),
    "html": lambda text: answer("500 No", f"<p>{html.escape(text)}</p>", content_type="text/html"),
    "html_numbers": lambda text: answer("400 No", "".join(f"&#{ord(c)};" for c in text)),
    "html_hex": lambda text: answer("400 No", "".join(c if c.isalnum() else f"&#x{ord(c):X};" for c in text)),
    "percent": lambda text: answer("400 No", _lower(text)),
    "percent_slash": lambda text: answer("400 No", quote(text)),
    "percent_twice": lambda text: answer("400 No", quote(quote(text, safe=""), safe="")),
    "base64": lambda text: answer("400 No", base64.b64encode(text.encode())),
    "base64_url": lambda text: answer("400 No", base64.urlsafe_b64encode(text.encode()).rstrip(b"=")),
    "base64_lines": lambda text: answer("400 No", base64.encodebytes(text.encode())),
    "quoted_printable": lambda text: answer("400 No", quopri.encodestring(text.encode())),
    "utf_7": lambda text: answer("400 No", text.encode("utf-7")),
    "hex": lambda text: answer("400 No", text.encode().hex()),
    "utf_16": lambda text: answer("400 No", text.encode("utf-16")),
    "latin_1": lambda text: answer("400 No", text.encode().decode("latin-1")),
    "late": lambda text: answer("400 No", "x" * 60 + text),
    "unauthorised": lambda text: answer("401 No", text, www_authenticate=f"Bearer realm={text}"),
    "forbidden": lambda text: answer("403 No", text),
    "not_found": lambda text: answer("404 No", text),
    "failed": lambda text: answer("500 No", text),
    "unavailable": lambda text: answer("503 No", text),
    "busy": lambda text: answer("429 No", text, retry_after=text),
    "reason": lambda text: answer(f"400 {text}", text),
    "not_json": lambda text: answer("200 OK", f"Hello {text}", content_type="text/plain"),
    "not_json_late": lambda text: answer("200 OK", "x" * 55 + text, content_type="text/plain"),
    "content_type": lambda text: answer("200 OK", "<", content_type=text),
    "charset": lambda text: answer("200 OK", b"\xe9\xff<", content_type=f"application/json; charset={text}"),
    "content_encoding": lambda text: answer("200 OK", page(), content_encoding=text),
    "truncated": lambda text: answer("200 OK", '{"rows": ["' + text),
    "records_object": lambda text: answer("200 OK", json.dumps({"rows": {text: 1}, "total": 5})),
    "records_text": lambda text: answer("200 OK", json.dumps({"rows": text, "total": 5})),
    "misfit": lambda text: answer("200 OK", json.dumps({"rows": [{"id": text}, *ROWS[1:]], "total": 5})),
    "misfit_deep": lambda text: answer(
        "200 OK", json.dumps({"rows": [{"id": [{text: text}]}, *ROWS[1:]], "total": 5}, ensure_ascii=False)
    ),
    "misfit_record": lambda text: answer("200 OK", json.dumps({"rows": [text, *ROWS[1:]], "total": 5})),
    "misfit_long": lambda text: answer(
        "200 OK", json.dumps({"rows": [{"id": "x" * 190 + quote(text, safe="")}, *ROWS[1:]], "total": 5})
    ),
    "records_failing": lambda text: answer("200 OK", json.dumps({"rows": text, "total": 5})),
    "records_failing_late": lambda text: answer("200 OK", json.dumps({"rows": "x" * 240 + text})),
    "total": lambda text: answer("200 OK", json.dumps({"rows": ROWS, "total": text})),
    "total_header": lambda text: answer("200 OK", page(), x_total=text),
    "location": lambda text: answer("302 Go", "", location=f"/final?x={quote(text)}"),
    "location_bad": lambda text: answer("302 Go", "", location=f"http://[{text}"),
    "location_away": lambda text: answer("302 Go", "", location=f"http://127.0.0.1:9/{_lower(text)}"),
    "final": lambda text: answer("400 No", text),
    "chunks": lambda text: answer("200 OK", f"{text}\r\n", transfer_encoding="chunked"),
    "no_http": lambda text: f"{text} is no HTTP\r\n\r\n".encode(),
    "bad_header": lambda text: f"HTTP/1.1 200 OK\r\n\x01{text}\r\n\r\n".encode(),
    # Longer than any header may be: what is said of it is cut by who reads HTTP.
    "long_header": lambda text: answer("200 OK", page(), x_long="x" * 60 + text + "x" * 70_000),
    "long_reason": lambda text: answer(f"400 {'x' * 60}{text}{'x' * 70_000}"),
    "broken_off": lambda text: answer("400 No", text[:14], content_length=str(len(text.encode()))),
    "next": lambda text: answer("200 OK", page(next=f"/next?token={quote(text)}&page=2")),
    "cursor": lambda text: answer("200 OK", page(next_cursor=text)),
    "ok": lambda text: answer("200 OK", page(), server=text, etag=f'"{text}"', x_ratelimit_scope=text),
    "once": lambda text: answer("500 No", text),
}
#: Ways that end well, the second one at the second request.
GOOD = ("ok", "once")


class EchoServer:
    """Answers `/WAY` in that way with all that it heard of who asks; `/token` gives out a token."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.token_way: str | None = None
        self.port = 0
        self.heard: defaultdict[str, set[str]] = defaultdict(set)
        self._asked: defaultdict[str, int] = defaultdict(int)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="echo-server", daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

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
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("utf-8", errors="surrogateescape")
            line, *fields = head.split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            writer.write(self._answer(line.split(" ")[1], headers, body))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    def _answer(self, target: str, headers: dict[str, str], body: bytes) -> bytes:
        url = urlsplit(target)
        way = url.path.strip("/")
        heard = _heard(url.query, headers, body)
        self.heard[way] |= set(heard)
        self._asked[way] += 1
        text = " ".join(heard)
        if way == "token" and self.token_way is None:
            return answer("200 OK", json.dumps({"access_token": self.token, "token_type": "Bearer"}))
        if way == "token":
            return TOKEN_WAYS[self.token_way](text)
        # Counting and collecting each send a request of their own.
        if way == "once" and self._asked[way] % 2 == 0:
            return answer("200 OK", page())
        return WAYS[way](text) if way in WAYS else answer("404 No", "no such way")


TOKEN_WAYS: dict[str, Callable[[str], bytes]] = {
    "description": lambda text: answer(
        "400 No", json.dumps({"error": "invalid_client", "error_description": text})
    ),
    "type": lambda text: answer("200 OK", json.dumps({"access_token": "abcdef", "token_type": text})),
    "life": lambda text: answer("200 OK", json.dumps({"access_token": "abcdef", "expires_in": text})),
    "not_json": lambda text: answer("200 OK", text, content_type=text),
    "failed": lambda text: answer("500 No", text),
}


def _heard(query: str, headers: dict[str, str], body: bytes) -> list[str]:
    """What proves who asks, as a server understands it and as it came."""
    found = [value for name, value in parse_qsl(query) if name == "api_key"]
    found += [value for name, value in headers.items() if name.startswith("x-")]
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme == "Basic":
        pair = base64.b64decode(value).decode()
        # RFC 6749 2.3.1: a client of OAuth encodes both.
        found += [value, pair, pair.partition(":")[2], unquote_to_bytes(pair.partition(":")[2]).decode()]
    elif scheme:
        found.append(value)
    if body:
        found += [value for name, value in parse_qsl(body.decode()) if name.startswith("client_")]
    return [text for text in found if text]
