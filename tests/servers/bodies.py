"""A server that answers with bodies as they are given, byte for byte: what no library would write.

In a test: `with Bodies({"/things": [b"[...]", b"[]"]}) as server: ...`. Page n of a path is the n-th body (`?page=n`,
from 1); the last one is repeated for pages beyond it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


class Bodies:
    """Serves bodies.

    Args:
        bodies: By path, page after page.
    """

    def __init__(self, bodies: Mapping[str, Sequence[bytes]]) -> None:
        self._bodies = bodies
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        bodies = self._bodies

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                pages = bodies.get(url.path)
                number = int(parse_qs(url.query).get("page", ["1"])[0])
                body = b"" if pages is None else pages[min(number, len(pages)) - 1]
                self.send_response(404 if pages is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    @property
    def base_url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_port}"
