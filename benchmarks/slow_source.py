"""A source whose tasks last as long as their parameters say: for what happens while something runs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

#: A source that the project ships: pages of 100 rows, shards of 500.
SOURCE: Final = "example_offset"
CONNECTION: Final = "example_api"
PAGE_ROWS: Final = 100
#: One shard, and so one shard group: a first page at once, four that take their time.
LONG_ROWS: Final = 500
#: Shorter than a source's read time-out, 30 s.
LONG_PAGE_S: Final = 27.0
WAITING_S: Final = 20.0


class Kind(IntEnum):
    """What a task is, by the year of its parameter."""

    URGENT = 2020
    """One row, at once."""
    LONG = 2021
    """Lasts `LONG_PAGE_S` four times, in one shard group."""
    WAITING = 2022
    """One row after `WAITING_S`."""


def since(kind: Kind, number: int) -> str:
    """The parameter of a task; no two of a kind with different numbers are equal."""
    moment = datetime(kind, 1, 1, tzinfo=UTC) + timedelta(seconds=number % 30_000_000)
    return moment.isoformat()


def page(kind: Kind, offset: int, number: int) -> dict[str, Any]:
    """What the source answers."""
    total = LONG_ROWS if kind is Kind.LONG else 1
    ids = range(offset, min(offset + PAGE_ROWS, total))
    at = "2026-01-01T00:00:00Z"
    rows = [
        {"id": number * LONG_ROWS + i, "value": 1.5, "even": i % 2 == 0, "at": at, "name": "n"} for i in ids
    ]
    return {"rows": rows, "total": total}


def pause_s(kind: Kind, offset: int, long_page_s: float, waiting_s: float) -> float:
    """How long it takes for that."""
    if kind is Kind.WAITING:
        return waiting_s
    return long_page_s if kind is Kind.LONG and offset >= PAGE_ROWS else 0.0


@contextmanager
def serve(long_page_s: float = LONG_PAGE_S, waiting_s: float = WAITING_S) -> Iterator[int]:
    """The source, for the length of the block; its port.

    Args:
        long_page_s: How long each of the four slow pages of a long task takes.
        waiting_s: How long the answer to a waiting task takes.
    """
    over = threading.Event()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            moment = datetime.fromisoformat(query["since"][0])
            kind, offset = Kind(moment.year), int(query.get("offset", ["0"])[0])
            over.wait(pause_s(kind, offset, long_page_s, waiting_s))
            start = datetime(moment.year, 1, 1, tzinfo=UTC)
            body = json.dumps(page(kind, offset, int((moment - start).total_seconds()))).encode()
            try:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:  # whoever asked was killed: that is what this is for
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="slow source")
    thread.start()
    try:
        yield server.server_port
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def numbers() -> Iterator[int]:
    """Numbers that no earlier run has used: tasks of the last one may hold their keys for a day."""
    number = int(time.time() * 10)
    while True:
        number += 1
        yield number
