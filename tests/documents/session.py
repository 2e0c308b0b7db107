"""A shell as a person has it: what `make env` gives it and nothing else, on a desk of its own."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import Final, Self

from tests.documents.blocks import DocumentFault

COMMAND_TIMEOUT_S: Final = 90.0
#: What the tests know of the stack, a person learns from `make env`.
HIDDEN: Final = ("COLLECT_", "AIRFLOW", "PG", "PYTHON", "MAKE", "PYTEST", "VIRTUAL_ENV")


class Session:
    """A bash that goes on from command to command.

    Args:
        desk: where it works; `lay_out` makes one.
        home: the stack's folder.
    """

    def __init__(self, desk: Path, home: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
        self._desk = desk
        self._shell = subprocess.Popen(
            ["/bin/bash", "--noprofile", "--norc"],
            cwd=desk,
            env={**kept, "STACK_HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1", "PAGER": "cat"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        for stream in (self._shell.stdin, self._shell.stdout):
            if stream is not None:
                stream.close()

    def run(self, text: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> tuple[int, str]:
        """Run it; returns its exit status and what it printed.

        Raises:
            DocumentFault: it ended the shell, or took too long.
        """
        assert self._shell.stdin is not None
        if self._shell.poll() is not None:
            raise DocumentFault(f"not run, since the shell was ended above: {text}")
        script = self._desk / ".command.sh"
        script.write_text(text + "\n", encoding="utf-8")
        mark = f"--ended-{uuid.uuid4().hex}"
        self._shell.stdin.write(f". ./.command.sh </dev/null; echo {mark} $?\n".encode())
        self._shell.stdin.flush()
        printed = self._read_until(mark, text, timeout_s)
        output, _, status = printed.rpartition(mark)
        return int(status), output

    def _end(self) -> None:
        if self._shell.poll() is None:
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()

    def _read_until(self, mark: str, text: str, timeout_s: float) -> str:
        assert self._shell.stdout is not None
        printed = bytearray()
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._shell.stdout, selectors.EVENT_READ)
            while not (mark.encode() in printed and printed.endswith(b"\n")):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise DocumentFault(
                        f"not over within {timeout_s:.0f} s: {text}\n{printed.decode(errors='replace')}"
                    )
                chunk = os.read(self._shell.stdout.fileno(), 65536)
                if not chunk:
                    raise DocumentFault(f"ended the shell: {text}\n{printed.decode(errors='replace')}")
                printed += chunk
        return printed.decode(errors="replace")


#: `make` works in the checkout itself: an environment knows where it was made.
MAKEFILE: Final = """\
MAKEFLAGS += --no-print-directory
Makefile: ;
FORCE: ;
%: FORCE
\t@$(MAKE) -C {checkout} $@
"""


def lay_out(desk: Path, checkout: Path) -> Path:
    """A folder that looks like the checkout, in which examples leave their files without leaving them in it."""
    for entry in checkout.iterdir():
        if entry.name not in (".git", "Makefile"):
            (desk / entry.name).symlink_to(entry)
    (desk / "Makefile").write_text(MAKEFILE.format(checkout=checkout), encoding="utf-8")
    return desk
