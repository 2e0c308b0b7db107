"""Which code and settings a running process has started with, and whether they are those of this checkout.

A process keeps what it has read at its start. `launch.py` writes down what that was just before it becomes the program;
`make up` restarts what differs by now, `make status` shows it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from collect_ops.kernel.code import code_digest, digest_of
from stack.credentials import write_private
from stack.environment import NODE
from stack.layout import Layout
from stack.programs import Program, programs
from stack.settings import Stack
from stack.supervisor import ProcessState

#: What a server reads at its start, beside its command line.
_SERVER_FILES = {
    "postgres": ("config/postgresql.conf",),
    "redis": ("config/redis.conf",),
    "rabbitmq": ("config/rabbitmq.conf",),
}


class Code(StrEnum):
    """What a running process has started with."""

    CURRENT = "current"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Digests of what is in the checkout now; read once for all programs.

    Args:
        root: The checkout.
        code: Of the modules, statements and locked versions.
        settings: Of what is read once: `include/rules` and `config/`.
        stack: Of this package.
    """

    root: Path
    code: str
    settings: str
    stack: str

    @classmethod
    def of(cls, root: Path) -> Sources:
        """Read a checkout."""
        settings = [*(root / "include" / "rules").glob("*.yaml"), *(root / "config").glob("*.py")]
        return cls(
            root=root,
            code=code_digest(root),
            settings=digest_of(settings, root),
            stack=digest_of((root / "stack").glob("*.py"), root),
        )


def identity(stack: Stack, program: Program, sources: Sources) -> str:
    """A digest of all that a process of the program reads at its start, once.

    Args:
        stack: The stack.
        program: The program.
        sources: What the checkout holds.
    """
    command, variables, listens = program.command(stack), program.variables(stack), program.listens(stack)
    # Who calls `up` and who is called by supervisord need not agree in what a node is called.
    variables = {key: value for key, value in variables.items() if key not in NODE}
    parts: list[object] = [command, sorted(variables.items()), listens]
    if program.is_airflow:
        parts += [sources.code, sources.settings]
    if program.name == "watchdog":
        parts.append(sources.stack)
    if program.name in _SERVER_FILES:
        files = [sources.root / name for name in _SERVER_FILES[program.name]]
        parts.append(digest_of(files, sources.root))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def write_note(stack: Stack, program: Program, pid: int) -> None:
    """Write down with what a process starts; called by the process that becomes the program."""
    note = {"pid": pid, "identity": identity(stack, program, Sources.of(stack.layout.checkout))}
    write_private(_note(stack.layout, program.name), json.dumps(note))


def code_of(stack: Stack, program: Program, state: ProcessState, sources: Sources) -> Code | None:
    """What a program's process has started with; None when none runs.

    A process without a note was started by a release that wrote none.
    """
    if not state.pid:
        return None
    try:
        note = json.loads(_note(stack.layout, program.name).read_text())
    except FileNotFoundError:
        return Code.OTHER
    if note["pid"] != state.pid or note["identity"] != identity(stack, program, sources):
        return Code.OTHER
    return Code.CURRENT


def outdated(stack: Stack, states: Mapping[str, ProcessState]) -> list[str]:
    """Programs that run with other code or settings than this checkout's, in starting order."""
    sources = Sources.of(stack.layout.checkout)
    return [
        name
        for name, program in programs(stack).items()
        if code_of(stack, program, states[name], sources) is Code.OTHER
    ]


def _note(layout: Layout, name: str) -> Path:
    return layout.run / f"{name}.code"
