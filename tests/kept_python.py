"""`python -m MODULE …` from a process that is kept: it has imported what commands import, and forks for each.

A command takes what its own work takes, not the second or two of its imports; arguments, variables, folder, standard
streams and exit status are a process's own, as ever. What is imported is of the time of the first command: tests that
change code on disk start interpreters themselves.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

CHECKOUT = Path(__file__).resolve().parents[1]
#: What commands import when they run: the stack's, and what most of `collect-ops` needs.
IMPORTED = (
    "stack.commands", "stack.versions", "stack.airflow_connections",
    "collect_ops.cli.app", "collect_ops.admission.bulk", "collect_ops.admission.service",
    "collect_ops.broker.migration", "collect_ops.collectors.http", "collect_ops.delivery.redrive",
    "collect_ops.delivery.sweep",
    "collect_ops.landing.migration", "collect_ops.lanes.rest_runs", "collect_ops.lanes.why", "collect_ops.sources.load",
    "collect_ops.tasks.progress", "collect_ops.tasks.search", "rich.table",
)  # fmt: skip


class KeptPython:
    """The kept process, started with the first command."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._one_at_a_time = threading.Lock()

    def run(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str],
        folder: Path = CHECKOUT,
        stdin: str = "",
        timeout_s: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.

        Args:
            module: As after `python -m`.
            arguments: Its arguments.
            environment: All of its variables.
            folder: Where it runs.
            stdin: What it reads.
            timeout_s: Seconds after which it is killed.

        Raises:
            TimeoutExpired: it was killed.
        """
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(stdin.encode())
            given.seek(0)
            paths = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (given, out, err)]
            request = {
                "module": module,
                "arguments": arguments,
                "environment": dict(environment),
                "folder": str(folder),
                "streams": paths,
            }
            with self._one_at_a_time:
                status = self._ask(request, timeout_s)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        if status is None:
            raise subprocess.TimeoutExpired([module, *arguments], timeout_s or 0.0, texts[0], texts[1])
        return subprocess.CompletedProcess([module, *arguments], status, *texts)

    def _ask(self, request: Mapping[str, Any], timeout_s: float | None) -> int | None:
        """The exit status of a request; None when it was killed since its time was over."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        killed = threading.Event()
        pid = 0

        def kill() -> None:
            killed.set()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

        timer = threading.Timer(timeout_s or 0.0, kill)
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            pid = int(process.stdout.readline())
            if timeout_s is not None:
                timer.start()
            status = int(process.stdout.readline())
        except BaseException:
            # A test that is over, by its own time limit for one: the next must not read what this one was to be told.
            if pid:
                kill()
            process.kill()
            raise
        finally:
            timer.cancel()
        return None if killed.is_set() else status

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            # Not by the link to the environment: `python -m stack` would go on from its folder as another process.
            python = Path(sys.prefix).resolve() / "bin" / "python"
            self._process = subprocess.Popen(
                [python, __file__],
                cwd=CHECKOUT,
                env={**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'plugins'}"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            atexit.register(self.end)
        return self._process

    def end(self) -> None:
        """End the kept process."""
        if self._process is not None and self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(10)


KEPT = KeptPython()


def serve() -> dict[str, Any]:
    """Fork for each request that is read, and say how it ended; returns in the forked processes, with their request."""
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        pid = os.fork()
        if pid == 0:
            return request
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


def become(request: Mapping[str, Any]) -> NoReturn:
    """Be the process that was asked for."""
    given, out, err = request["streams"]
    for number, (path, flags) in enumerate(((given, os.O_RDONLY), (out, os.O_WRONLY), (err, os.O_WRONLY))):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = [request["module"], *request["arguments"]]
    status: object = None
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        status = ended.code
        if not isinstance(status, int | None):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:  # noqa: BLE001 - as an interpreter does, whatever it was
        traceback.print_exc()
        status = 1
    # As an interpreter ends, but for tearing down all that was imported, which takes half a second.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


if __name__ == "__main__":
    sys.path.pop(0)  # tests/, whose names are no modules
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would touch, and so copy, all of it
    become(serve())
