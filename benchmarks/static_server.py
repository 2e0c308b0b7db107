"""The server that costs nothing: nginx hands out pages that lie ready (`flight_pages`), at Datasette's addresses.

Datasette needs 2.6 s for the whole table, more than the fastest contenders: beside it they all look alike. nginx sends
a page from the kernel's cache without touching it. Entity tags and dates are left out, as Datasette sends none.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks.errors import PeerFailed
from benchmarks.flight_pages import FlightPages, PageSet, ensure_pages
from demo.dataset import ensure_dataset
from demo.server import COUNT_PATH, HOST, PAGE_PATH, end_with_parent, find_uv

START_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 10.0
#: Debian's stands where a user's path does not lead.
SYSTEM_FOLDERS: Final = "/usr/sbin:/usr/local/sbin"
TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticServer:
    """A running server.

    Attributes:
        base_url: scheme, host and port, no slash at the end.
        rows: how many rows it serves.
    """

    base_url: str
    rows: int


@contextmanager
def serve_static(home: Path, wanted: PageSet, console: Console) -> Iterator[StaticServer]:
    """Make pages where they are not there yet, and serve them for the length of the block.

    Args:
        home: the stack's folder.
        wanted: which pages.
        console: where progress is shown.
    """
    dataset = ensure_dataset(home / "demo", find_uv(home))
    with serve_pages(ensure_pages(home, dataset, wanted, console)) as server:
        yield server


@contextmanager
def serve_pages(pages: FlightPages) -> Iterator[StaticServer]:
    """Serve pages for the length of the block; they are in the kernel's cache when it begins.

    Raises:
        PeerFailed: nginx is not there, or did not start.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path=SYSTEM_FOLDERS)
    if program is None:
        raise PeerFailed(
            peer="nginx", reason="it is not installed: make bench-venv, or the Debian package nginx"
        )
    folder = pages.folder.with_name(f"{pages.folder.name}.nginx")
    folder.mkdir(exist_ok=True)
    port = _free_port()
    (folder / "nginx.conf").write_text(configuration(pages.folder, folder, port))
    pages.warm()
    log = folder / "error.log"
    command = [program, "-p", str(folder), "-e", str(log), "-c", "nginx.conf"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, preexec_fn=end_with_parent)  # noqa: PLW1509 - no thread runs here
    try:
        _wait_until_ready(process, port, log)
        yield StaticServer(base_url=f"http://{HOST}:{port}", rows=pages.rows)
    finally:
        _stop(process)


def configuration(pages: Path, folder: Path, port: int) -> str:
    """The file that nginx reads.

    Args:
        pages: the folder of the pages.
        folder: where nginx writes.
        port: where it listens, on this machine only.
    """
    # As root nginx would serve as somebody who may not read the stack's folder.
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    temporary = "\n".join(f"    {name}_temp_path {folder}/{name};" for name in TEMPORARY)
    return f"""
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
{user}
events {{ worker_connections 256; }}
http {{
{temporary}
    access_log off;
    default_type application/json;
    sendfile on;
    tcp_nopush on;
    etag off;
    if_modified_since off;
    add_header Last-Modified "";
    keepalive_requests 1000000;
    server {{
        listen {HOST}:{port};
        root {pages};
        location = {PAGE_PATH} {{ try_files /$arg_limit/$arg_offset.json /empty.json =404; }}
        location = {COUNT_PATH} {{ try_files /count.json =404; }}
        location / {{ return 404; }}
    }}
}}
"""


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise PeerFailed(peer="nginx", reason=f"it did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
