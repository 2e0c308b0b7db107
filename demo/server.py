"""The data server: Datasette over the flights, a process of its own.

Two ways to have it: `serve` is a context manager whose server ends with the block (and with the caller, should
that be killed); `ensure_running` keeps one server up for the stack: it is found again by a later call, and
`make down` ends it with everything else that carries the stack's mark in its environment.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
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
#: What the example sources collect from (`datasette_plugins/example_api.py`), and who is let in where it asks.
EXAMPLES_PATH: Final = "/examples"
EXAMPLES_LOGIN: Final = "reader"
EXAMPLES_SECRET_FILE: Final = "example_api.secret"  # noqa: S105 - a file name

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
    def rows(self) -> int:
        """How many rows it serves."""
        return self.dataset.rows

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

    @property
    def examples_url(self) -> str:
        """Where the example sources collect from."""
        return f"{self.base_url}{EXAMPLES_PATH}"

    @property
    def examples_password(self) -> str:
        """The password, token and key of the examples' API, which was generated at the server's first start."""
        return (self.log.parent / EXAMPLES_SECRET_FILE).read_text(encoding="utf-8").strip()

    def serves_examples(self) -> bool:
        """Whether it answers the example sources too: one that an older release started does not."""
        return bool(_get_json(f"{self.examples_url}/single")["rows"])


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
    launch = _prepare(home, port or _free_port(), log="server-of-a-run.log")
    with launch.log.open("wb") as output:
        process = subprocess.Popen(
            launch.command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=launch.environment,
            preexec_fn=end_with_parent,
        )
    try:
        server = launch.server(process.pid)
        _wait_until_ready(server, process.poll)
        yield server
    finally:
        _stop(process)


def serve_address() -> str:
    """Where workers reach this machine: their bridge's address when they have network namespaces (NODES=…)."""
    return os.environ.get("COLLECT_SERVE_ADDRESS") or HOST


def ensure_running(home: Path, host: str | None = None) -> DemoServer:
    """The stack's data server: the one that runs, else a new one, on the port it had before when that is free.

    Args:
        home: the stack's folder.
        host: address to listen on; `serve_address()` when not given.

    Raises:
        ServerFailed: the server did not answer within a minute.
        ToolMissing: the demo's environment has not been made.
    """
    note = home / "demo" / "server.json"
    remembered: dict[str, int] = json.loads(note.read_text()) if note.exists() else {}
    host = host or serve_address()
    if remembered:
        launch = _prepare(home, remembered["port"], host=host)
        if _is_running(launch, remembered["pid"]):
            return launch.server(remembered["pid"])
    last_port = remembered.get("port")
    port = last_port if last_port and _becomes_free(last_port, host) else _free_port(host)
    server = _spawn(_prepare(home, port, host=host))
    note.write_text(json.dumps({"pid": server.pid, "port": server.port}))
    return server


def _is_running(launch: _Launch, pid: int) -> bool:
    """Whether the process is the server that `launch` would start, and answers; ended when it is an older one."""
    try:
        process = psutil.Process(pid)
        command = process.cmdline()
        if str(launch.dataset.path) not in command:
            return False  # the number belongs to somebody else now
        if command[-len(launch.command) :] != launch.command or not _answers(launch.server(pid)):
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
            return False
    except psutil.NoSuchProcess:
        return False
    return True


def _answers(server: DemoServer) -> bool:
    try:
        return server.count() == server.dataset.rows and server.serves_examples()
    except (urllib.error.URLError, TimeoutError):
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Launch:
    """What is needed to start the server."""

    command: list[str]
    environment: dict[str, str]
    dataset: Dataset
    base_url: str
    log: Path

    def server(self, pid: int) -> DemoServer:
        """The server that runs as `pid`."""
        return DemoServer(base_url=self.base_url, pid=pid, dataset=self.dataset, log=self.log)


def _prepare(home: Path, port: int, log: str = "server.log", host: str = HOST) -> _Launch:
    folder = home / "demo"
    dataset = ensure_dataset(folder, find_uv(home))
    return _Launch(
        command=_command(folder, dataset, host, port),
        # The marks by which `make down` finds what belongs to its stack: a shell that has evaluated `make env` carries
        # the first one too, and must not be ended.
        environment={**os.environ, "COLLECT_OPS_STACK": str(home), "COLLECT_OPS_PROGRAM": "demo-server"},
        dataset=dataset,
        base_url=f"http://{host}:{port}",
        log=folder / log,
    )


def _spawn(launch: _Launch) -> DemoServer:
    """Start a server that outlives this process: in a session of its own, waited for by nobody."""
    output = (os.POSIX_SPAWN_OPEN, 1, launch.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    silence = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    pid = os.posix_spawn(
        launch.command[0],
        launch.command,
        launch.environment,
        file_actions=[silence, output, (os.POSIX_SPAWN_DUP2, 1, 2)],
        setsid=True,
    )
    server = launch.server(pid)
    try:
        _wait_until_ready(server, lambda: _exit_status(pid))
    except BaseException:
        if _exit_status(pid) is None:
            os.kill(pid, signal.SIGKILL)
        raise
    return server


def _exit_status(pid: int) -> int | None:
    """The exit status of a child, None while it runs."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # it ended, and was seen to before
        return 0
    return os.waitstatus_to_exitcode(status) if ended else None


def _command(folder: Path, dataset: Dataset, host: str, port: int) -> list[str]:
    """Datasette's command line; `--immutable` spares it locks and change checks."""
    metadata = folder / "metadata.json"
    queries = {"flights_page": {"sql": PAGE_SQL}, "flights_count": {"sql": COUNT_SQL}}
    plugins = {"example_api": {"password": {"$file": str(_ensure_password(folder))}}}
    content = {"databases": {DATABASE: {"queries": queries}}, "plugins": plugins}
    metadata.write_text(json.dumps(content, indent=2))
    settings = [part for name, value in SETTINGS.items() for part in ("--setting", name, value)]
    serve_args = [
        "serve",
        "--immutable",
        str(dataset.path),
        "--metadata",
        str(metadata),
        "--plugins-dir",
        str(PLUGINS),
    ]
    return [str(find_datasette(folder.parent)), *serve_args, "--host", host, "--port", str(port), *settings]


def _ensure_password(folder: Path) -> Path:
    """The file of the examples' password, readable by its owner only; made when it is not there."""
    path = folder / EXAMPLES_SECRET_FILE
    if not path.exists():
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_urlsafe(24) + "\n", encoding="utf-8")
        fresh.rename(path)
    return path


def end_with_parent() -> None:
    """Runs in the child before Datasette: have the kernel end it when its parent is gone, however that went."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_ready(server: DemoServer, exit_status: Callable[[], int | None]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    reason = "no answer yet"
    while time.monotonic() < deadline:
        status = exit_status()
        if status is not None:
            raise ServerFailed(url=server.base_url, reason=f"ended with {status}", log=server.log)
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


def _free_port(host: str = HOST) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


def _becomes_free(port: int, host: str) -> bool:
    """Whether the port can be had within two seconds: a process that was just killed still holds its own a little."""
    deadline = time.monotonic() + 2
    while not _is_free(port, host):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _is_free(port: int, host: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
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
