"""`collect-ops` on a terminal: a pseudo terminal of the kernel's, and what stands on its screen."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROWS = 24
_TOKEN = re.compile(
    r"\x1b\[(?P<arguments>\??[0-9;]*)(?P<command>[A-Za-z])|(?P<plain>[^\x1b])|(?P<unknown>\x1b.?)", re.DOTALL
)


class Screen:
    """What a terminal makes of some output.

    Args:
        output: All that was written.
        columns: Its width; what is longer goes on in the next row.

    Attributes:
        rows: The text of each row, as it stands at the end.
        erased: Row and text of each line that was erased to be drawn anew, in order.
        cursor_shown: Whether the cursor can be seen.
    """

    def __init__(self, output: str, columns: int) -> None:
        self.rows = [""]
        self.erased: list[tuple[int, str]] = []
        self.cursor_shown = True
        self._columns, self._row, self._column = columns, 0, 0
        for token in _TOKEN.finditer(output):
            if token["unknown"]:
                raise AssertionError(f"an escape sequence that this terminal does not know: {token[0]!r}")
            if token["command"]:
                self._obey(token["command"], token["arguments"])
            else:
                self._write(token["plain"])

    def _obey(self, command: str, argument: str) -> None:
        if command == "K" and argument == "2":
            if self.rows[self._row]:
                self.erased.append((self._row, self.rows[self._row]))
            self.rows[self._row] = ""
        elif command == "A":
            self._row -= int(argument or 1)
        elif (command, argument) in (("h", "?25"), ("l", "?25")):
            self.cursor_shown = command == "h"
        else:
            raise AssertionError(f"a command that this terminal does not know: {argument}{command}")

    def _write(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._next_row()
        else:
            if self._column == self._columns:
                self._column = 0
                self._next_row()
            row = self.rows[self._row].ljust(self._column)
            self.rows[self._row] = row[: self._column] + character + row[self._column + 1 :]
            self._column += 1

    def _next_row(self) -> None:
        self._row += 1
        if self._row == len(self.rows):
            self.rows.append("")


class Terminal:
    """A command that runs on a pseudo terminal.

    Args:
        process: The command.
        master: Our end of the terminal.
        columns: Its width.
    """

    def __init__(self, process: subprocess.Popen[bytes], master: int, columns: int) -> None:
        self.process = process
        self._master, self._columns = master, columns
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read, name="terminal")
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                content = os.read(self._master, 65536)
            except OSError:  # EIO: nobody has the other end any more
                return
            if not content:
                return
            self._written += content

    @property
    def output(self) -> str:
        """What was written so far."""
        return bytes(self._written).decode(errors="replace")

    def await_text(self, text: str, timeout_s: float = 30) -> None:
        """Return once a text was written."""
        deadline = time.monotonic() + timeout_s
        while text not in self.output:
            assert time.monotonic() < deadline, f"{text!r} was not written: {self.output!r}"
            assert self.process.poll() is None or text in self.output, f"it has ended: {self.output!r}"
            time.sleep(0.02)

    def end(self, timeout_s: float = 30) -> Screen:
        """Wait for the command's end; returns the screen that it leaves."""
        self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return Screen(self.output, self._columns)


@contextmanager
def on_terminal(
    *arguments: str, environment: Mapping[str, str], columns: int, errors: Path
) -> Iterator[Terminal]:
    """Run `collect-ops` on a terminal; it is killed when the block ends before it does.

    Args:
        arguments: Of the command.
        environment: All of its variables.
        columns: The terminal's width.
        errors: Where its stderr goes.
    """
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (ROWS, columns))
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "collect_ops.cli", *arguments],
            stdin=slave, stdout=slave, stderr=stderr, env=dict(environment),
            # Ignored where the tests run in the background, and by all that is started there.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )  # fmt: skip
    os.close(slave)
    terminal = Terminal(process, master, columns)
    try:
        yield terminal
    finally:
        if process.poll() is None:
            process.kill()
        terminal.end()
        os.close(master)
