"""The data server: Datasette over the flights, a process of its own.

Two ways to have it: `serve` is a context manager whose server ends with the block (and with the caller, should
that be killed); `ensure_running` keeps one server up for the stack: it is found again by a later call, and
`make down` ends it with everything else that carries the stack's mark in its environment.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from demo.dataset import COLUMNS, DATABASE, TABLE, Dataset, ensure_dataset
from demo.errors import ServerFailed, ToolMissing

HOST: Final = "127.0.0.1"
#: Rows a page may have: what `include/sources/flights.yaml` and the benchmarks ask for, and room above it.
MAX_PAGE_ROWS: Final = 20_000
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 10.0
PR_SET_PDEATHSIG: Final = 1

PAGE_PATH: Final = f"/{DATABASE}/flights_page.json"
COUNT_PATH: Final = f"/{DATABASE}/flights_count.json"
PLUGINS: Final = Path(__file__).resolve().parent / "datasette_plugins"

#: The rowids have no gap (see `demo.dataset`), so this is `order by rowid limit :limit offset :offset` without
#: stepping over `offset` rows: page 67 costs what page 1 costs, and the server is not what is measured.
PAGE_SQL: Final = f"""
    select {", ".join(COLUMNS)} from {TABLE}
    where rowid > cast(:offset as integer) order by rowid limit cast(:limit as integer)
"""
COUNT_SQL: Final = f"select count(*) as total from {TABLE}"

SETTINGS: Final[Mapping[str, str]] = {
    "max_returned_rows": str(MAX_PAGE_ROWS),
    # On a busy machine a page waits for the processor longer than the default second.
    "sql_time_limit_ms": "20000",
    "default_cache_ttl": "0",
    "allow_facet": "off",
    "suggest_facets": "off",
    "allow_download": "off",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoServer:
    """A running data server.

    Attributes:
        base_url: scheme, host and port, no slash at the end.
        pid: its process.
        dataset: what it serves.
        log: the file its output goes to.
    """

    base_url: str
    pid: int
    dataset: Dataset
    log: Path

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.base_url.rsplit(":", 1)[1])

    def page_url(self, offset: int, limit: int) -> str:
        """The address of the page of `limit` rows after the first `offset` rows."""
        return f"{self.base_url}{PAGE_PATH}?_shape=objects&offset={offset}&limit={limit}"

    def count(self) -> int:
        """How many rows the server says it has."""
        answer = _get_json(f"{self.base_url}{COUNT_PATH}?_shape=objects")
        return int(answer["rows"][0]["total"])


@contextmanager
def serve(home: Path, *, port: int | None = None) -> Iterator[DemoServer]:
    """Serve the flights for the length of the block.

    Args:
        home: the stack's folder; what the demo writes goes below `home/demo`.
        port: where to listen; a free port when not given.

    Raises:
        ServerFailed: the server did not answer within a minute.
        ToolMissing: the demo's environment has not been made.
    """
    process, server = _start(home, port or _free_port(), ends_with_caller=True)
    try:
        yield server
    finally:
        _stop(process)


def ensure_running(home: Path) -> DemoServer:
    """The stack's data server: the one that runs, else a new one, on the port it had before when that is free.

    Args:
        home: the stack's folder.

    Raises:
        ServerFailed: the server did not answer within a minute.
        ToolMissing: the demo's environment has not been made.
    """
    note = home / "demo" / "server.json"
    remembered: dict[str, int] = json.loads(note.read_text()) if note.exists() else {}
    running = _find_running(home, remembered)
    if running is not None:
        return running
    last_port = remembered.get("port")
    port = last_port if last_port and _is_free(last_port) else _free_port()
    _, server = _start(home, port, ends_with_caller=False)
    note.write_text(json.dumps({"pid": server.pid, "port": server.port}))
    return server


def _find_running(home: Path, remembered: Mapping[str, int]) -> DemoServer | None:
    """The server that `remembered` names, if that process is still it and answers."""
    if not remembered or not psutil.pid_exists(remembered["pid"]):
        return None
    try:
        if "datasette" not in " ".join(psutil.Process(remembered["pid"]).cmdline()):
            return None
    except psutil.NoSuchProcess:
        return None
    server = DemoServer(
        base_url=f"http://{HOST}:{remembered['port']}",
        pid=remembered["pid"],
        dataset=ensure_dataset(home / "demo", find_uv(home)),
        log=home / "demo" / "server.log",
    )
    try:
        server.count()
    except (urllib.error.URLError, TimeoutError):
        return None
    return server


def _start(home: Path, port: int, *, ends_with_caller: bool) -> tuple[subprocess.Popen[bytes], DemoServer]:
    folder = home / "demo"
    dataset = ensure_dataset(folder, find_uv(home))
    log = folder / "server.log"
    base_url = f"http://{HOST}:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(folder, dataset, port),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "COLLECT_OPS_STACK": str(home)},
            start_new_session=not ends_with_caller,
            preexec_fn=_end_with_parent if ends_with_caller else None,
        )
    server = DemoServer(base_url=base_url, pid=process.pid, dataset=dataset, log=log)
    try:
        _wait_until_ready(process, server)
    except BaseException:
        _stop(process)
        raise
    return process, server


def _command(folder: Path, dataset: Dataset, port: int) -> list[str]:
    """Datasette's command line; `--immutable` spares it locks and change checks."""
    metadata = folder / "metadata.json"
    queries = {"flights_page": {"sql": PAGE_SQL}, "flights_count": {"sql": COUNT_SQL}}
    metadata.write_text(json.dumps({"databases": {DATABASE: {"queries": queries}}}, indent=2))
    settings = [part for name, value in SETTINGS.items() for part in ("--setting", name, value)]
    serve_args = ["serve", "--immutable", str(dataset.path), "--metadata", str(metadata), "--plugins-dir", str(PLUGINS)]
    return [str(find_datasette(folder.parent)), *serve_args, "--host", HOST, "--port", str(port), *settings]


def _end_with_parent() -> None:
    """Runs in the child before Datasette: have the kernel end it when its parent is gone, however that went."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_ready(process: subprocess.Popen[bytes], server: DemoServer) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    reason = "no answer yet"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(url=server.base_url, reason=f"ended with {process.returncode}", log=server.log)
        try:
            found = server.count()
        except (urllib.error.URLError, TimeoutError) as error:
            reason = str(error)
            time.sleep(0.1)
            continue
        if found != server.dataset.rows:
            raise ServerFailed(
                url=server.base_url, reason=f"serves {found} rows, not {server.dataset.rows}", log=server.log
            )
        return
    raise ServerFailed(url=server.base_url, reason=f"not ready in time ({reason})", log=server.log)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - our own address, always http
        return json.load(answer)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def find_datasette(home: Path) -> Path:
    """Datasette's executable in the demo's environment (`home/venv-demo`, else the checkout's own).

    Raises:
        ToolMissing: neither holds it.
    """
    return _find_tool("datasette", [home / "venv-demo/bin", _checkout() / ".stack/venv-demo/bin"])


def find_uv(home: Path) -> Path:
    """The `uv` that set the project up.

    Raises:
        ToolMissing: it is in none of the places where the set-up puts it.
    """
    roots = (home, _checkout() / ".stack")
    folders = [root / place for root in roots for place in ("uv/bin", "uv", "bin")]
    on_path = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    return _find_tool("uv", [*folders, Path(sys.executable).parent, *on_path])


def _find_tool(name: str, folders: list[Path]) -> Path:
    for folder in folders:
        candidate = folder / name
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise ToolMissing(tool=name, looked_in=folders, remedy="make the demo's environment: make demo")


def _checkout() -> Path:
    return Path(__file__).resolve().parent.parent
