"""A Python that has imported Airflow's SDK, as a parent of those who parse DAG files has: its children begin there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

_PARENT = """
import json, os, sys, time, traceback
began = time.perf_counter()
import airflow.sdk
from airflow.sdk import DAG
sdk = time.perf_counter() - began
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        for name, number in (("stdout", 1), ("stderr", 2)):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT, 0o600), number)
        os.environ.update(asked["environment"])
        status = 0
        try:
            exec(asked["code"], {"__name__": "__main__", "sdk": sdk})
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class WarmPython:
    """Runs code in processes forked from one that has imported `airflow.sdk`, which takes seconds.

    Args:
        environment: Variables of all of them, beside this process's own.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PARENT],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run code in a process of its own.

        Args:
            code: It knows `sdk`: how long importing `airflow.sdk` has taken, in seconds.
            environment: Variables for it alone.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            files = {name: str(Path(folder) / name) for name in ("stdout", "stderr")}
            asked = {"code": code, "environment": dict(environment), **files}
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                if line.startswith("ended "):
                    status = int(line.split()[1])
                    texts = {name: Path(file).read_text() for name, file in files.items()}
                    return subprocess.CompletedProcess("python", status, **texts)
        raise AssertionError(f"the process that forks ended with {self._process.wait()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
