"""supervisord: its configuration, and talking to it."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import time
import xmlrpc.client
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from stack import environment
from stack.credentials import write_private
from stack.faults import StackError
from stack.layout import Layout
from stack.processes import SUPERVISOR
from stack.programs import Program, programs
from stack.settings import Stack

LOG_BYTES, LOG_BACKUPS = "20MB", 2
#: supervisord kills after a program's own stop_wait_s, at most a minute; this is when we stop waiting for that.
LONGEST_STOP_S = 75.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """What supervisord says about a program.

    Args:
        pid: 0 when it does not run.
        state: supervisord's word (`RUNNING`, `STOPPED`, …).
        since: Start, seconds since the epoch; 0 when it never started.
    """

    pid: int
    state: str
    since: int


STOPPED = ProcessState(pid=0, state="STOPPED", since=0)


def escaped(value: object) -> str:
    """A value for the configuration file, where `%` expands."""
    return str(value).replace("%", "%%")


def configuration(stack: Stack) -> str:
    """The whole configuration file; no secret is in it."""
    layout = stack.layout
    head = f"""
[unix_http_server]
file={escaped(layout.supervisor_socket)}
chmod=0700

[supervisord]
logfile={escaped(layout.logs / "supervisord.log")}
logfile_maxbytes={LOG_BYTES}
logfile_backups={LOG_BACKUPS}
pidfile={escaped(layout.run / "supervisord.pid")}
childlogdir={escaped(layout.logs)}
directory={escaped(layout.work)}
identifier=collect-ops-{layout.stack_id}
umask=022

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
    return head + "".join(_section(layout, program) for program in programs(stack).values())


def _section(layout: Layout, program: Program) -> str:
    # startsecs 0: every end, however soon, is followed by a new start; the pause is in stack/launch.py.
    return f"""
[program:{program.name}]
command="{escaped(environment.program_folder() / "python")}" -m stack become {program.name}
directory={escaped(layout.checkout)}
autostart=false
autorestart=true
startsecs=0
stopsignal={program.stop_signal.name.removeprefix("SIG")}
stopwaitsecs={program.stop_wait_s}
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile={escaped(layout.logs / program.name)}.log
stdout_logfile_maxbytes={LOG_BYTES}
stdout_logfile_backups={LOG_BACKUPS}
"""


@contextlib.contextmanager
def asked(layout: Layout) -> Iterator[Any]:
    """The remote interface of supervisord, for the length of the block. Nothing is sent before a call."""
    transport = SupervisorTransport(None, None, f"unix://{layout.supervisor_socket}")
    with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as proxy:
        yield proxy.supervisor


def is_up(layout: Layout) -> bool:
    """Whether supervisord answers."""
    if not layout.supervisor_socket.exists():
        return False
    try:
        with asked(layout) as remote:
            return bool(remote.getState()["statename"] == "RUNNING")
    except (OSError, http.client.HTTPException, xmlrpc.client.Error):
        return False


def write_configuration(stack: Stack) -> Path:
    """Write the file that supervisord reads; returns it."""
    file = stack.layout.etc / "supervisord.conf"
    write_private(file, configuration(stack))
    return file


def add_programs(stack: Stack) -> list[str]:
    """Have a running supervisord know new programs, and leave the ones that it has as they are.

    Returns:
        Those that are started in another way now: `take_programs` takes them on when they are stopped.
    """
    write_configuration(stack)
    with asked(stack.layout) as remote:
        ((added, changed, _),) = remote.reloadConfig()
        for name in added:
            remote.addProcessGroup(name)
    return list(changed)


def take_programs(stack: Stack) -> None:
    """Have a running supervisord know the stack's present programs: new ones stopped, old ones ended and forgotten.

    Of those that are started in another way now, the ones that run go on: whoever wants them anew drains and stops them
    first, and `add_programs` names them until then.
    """
    write_configuration(stack)
    with asked(stack.layout) as remote:
        ((added, changed, removed),) = remote.reloadConfig()
        running = {name for name, state in states(stack.layout).items() if state.pid}
        taken = [name for name in changed if name not in running]
        stop_programs(stack.layout, removed)
        for name in (*removed, *taken):
            remote.removeProcessGroup(name)
        for name in (*added, *taken):
            remote.addProcessGroup(name)


def start(stack: Stack) -> None:
    """Start supervisord in the background; it starts no program by itself.

    Raises:
        StackError: it ended at once, or does not answer.
    """
    layout = stack.layout
    configuration_file = write_configuration(stack)
    layout.supervisor_socket.unlink(missing_ok=True)
    variables = {
        **environment.base(),
        **environment.marks(stack, SUPERVISOR),
        "STACK_HOME": str(layout.home),
        "PYTHONPATH": str(layout.checkout),
    }
    daemon = Path(sys.executable).with_name("supervisord")
    done = subprocess.run(
        [str(daemon), "-c", str(configuration_file)],
        env=variables, cwd=layout.work, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        preexec_fn=os.setsid,  # a Ctrl-C in the terminal that ran `make up` is not for the stack
    )  # fmt: skip
    if done.returncode != 0:
        raise StackError(f"supervisord did not start:\n{done.stdout}{done.stderr}")
    deadline = time.monotonic() + 20
    while not is_up(layout):
        if time.monotonic() > deadline:
            raise StackError(f"supervisord does not answer; see {layout.logs / 'supervisord.log'}")
        time.sleep(0.1)


def states(layout: Layout) -> dict[str, ProcessState]:
    """What supervisord has, by program; what is not in it is stopped, as everything is when supervisord is away."""
    found: dict[str, ProcessState] = defaultdict(lambda: STOPPED)
    if not is_up(layout):
        return found
    with asked(layout) as remote:
        found |= {
            info["name"]: ProcessState(pid=info["pid"], state=info["statename"], since=info["start"])
            for info in remote.getAllProcessInfo()
        }
    return found


def start_program(layout: Layout, name: str) -> None:
    """Have a stopped program started; returns at once."""
    with asked(layout) as remote:
        remote.startProcess(name, False)  # noqa: FBT003 (XML-RPC has no keywords)


def stop_programs(layout: Layout, names: list[str]) -> None:
    """Stop programs side by side and wait until they are; killed after their time by supervisord.

    Raises:
        StackError: one is still there long after its time.
    """
    running = {name for name, state in states(layout).items() if name in names and state.pid}
    with asked(layout) as remote:
        for name in running:
            remote.stopProcess(name, False)  # noqa: FBT003
    deadline = time.monotonic() + LONGEST_STOP_S
    while still := {name for name, state in states(layout).items() if name in running and state.pid}:
        if time.monotonic() > deadline:
            raise StackError(f"still running long after they were told to stop: {', '.join(sorted(still))}")
        time.sleep(0.1)


def shut_down(layout: Layout) -> None:
    """End supervisord, and wait until its process has."""
    with asked(layout) as remote:
        daemon = psutil.Process(remote.getPID())
        remote.shutdown()
    psutil.wait_procs([daemon], timeout=20)
