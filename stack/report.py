"""What the stack looks like right now: for people, and for programs."""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from stack import access, health, supervisor
from stack.code import Code, Sources, code_of
from stack.paused import standstill
from stack.programs import Program, programs
from stack.settings import HOST, Stack, read_settings

COLUMNS = ("service", "state", "pid", "since", "code", "address", "problem")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """One line of the table.

    Args:
        service: Its name.
        state: `healthy`, `unhealthy`, `stopped`, or `off` when it was not asked for.
        pid: None when it does not run.
        since: Start in UTC, ISO 8601; None when it does not run.
        address: Where it listens, or a dash.
        problem: What is wrong, or None.
        code: `current`, or `other` when it was started with code or settings that are not this checkout's: `make up`
            restarts it. None when it does not run.
    """

    service: str
    state: str
    pid: int | None
    since: str | None
    address: str
    problem: str | None
    code: Code | None = None


def status(stack: Stack) -> list[ServiceStatus]:
    """Every service, each asked at the same time as the others."""
    states = supervisor.states(stack.layout)
    known = programs(stack)
    sources = Sources.of(stack.layout.checkout)
    wanted = read_settings(stack.layout).get("wanted") or known

    def line(program: Program) -> ServiceStatus:
        state = states[program.name]
        complaint = health.illness(stack, program, state)
        if state.pid == 0:
            word = "stopped" if program.name in wanted else "off"
        else:
            word = "healthy" if complaint is None else "unhealthy"
        return ServiceStatus(
            service=program.name,
            state=word,
            pid=state.pid or None,
            since=datetime.fromtimestamp(state.since, UTC).isoformat() if state.pid else None,
            address=program.address(stack),
            problem=None if word in ("healthy", "off") else complaint,
            code=code_of(stack, program, state, sources),
        )

    with ThreadPoolExecutor(len(known)) as pool:
        return list(pool.map(line, known.values()))


def all_healthy(lines: list[ServiceStatus]) -> bool:
    """Whether whatever was asked for is healthy."""
    return all(line.state in ("healthy", "off") for line in lines)


def as_json(lines: list[ServiceStatus], paused: list[str]) -> str:
    """For programs: `{"healthy": bool, "services": [...], "paused": [...], "standstill": {...}}`."""
    document = {
        "healthy": all_healthy(lines),
        "services": [asdict(line) for line in lines],
        "paused": paused,
        "standstill": {dag_id: standstill(dag_id) for dag_id in paused},
    }
    return json.dumps(document, indent=2)


def as_table(lines: list[ServiceStatus]) -> str:
    """For people."""
    rows = [COLUMNS, *(tuple(str(getattr(line, name) or "-") for name in COLUMNS) for line in lines)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(COLUMNS))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    others = [line.service for line in lines if line.code is Code.OTHER]
    if others:
        table.append(f"runs other code: {', '.join(others)}. `make up` restarts what differs, tasks go on.")
    return "\n".join(table)


def where_to_click(stack: Stack) -> str:
    """The lines that `up` ends with."""
    home = os.path.relpath(stack.layout.home)
    return (
        f"\nAirflow   http://{HOST}:{stack.ports.api_server}   user admin, password: "
        f"grep AIRFLOW_ADMIN_PASSWORD {home}/secrets.env\n"
        f'Settings  eval "$(make -s env)"   for psql, redis-cli -u $COLLECT_REDIS_URL, collect-ops, curl\n'
        f"Logs      make logs S=scheduler   ({home}/logs)\n"
        f"Broker    http://{HOST}:{stack.ports.rabbitmq_management}   user {access.MONITOR}, "
        f"password: grep RABBITMQ_MONITOR_PASSWORD {home}/secrets.env"
    )


def follow(files: list[Path], *, lines: int, keep_on: bool) -> None:
    """Print the end of log files, and what is added while `keep_on` (until interrupted).

    Args:
        files: Logs; each line carries the log's name when there are several.
        lines: How many old lines of each.
        keep_on: Whether to go on with what is added.
    """
    positions = {}
    for file in files:
        if file.exists():
            prefix = f"{file.stem} | " if len(files) > 1 else ""
            text = file.read_text(errors="replace")
            positions[file] = file.stat().st_size
            for line in text.splitlines()[-lines:]:
                print(f"{prefix}{line}")
    while keep_on:
        sys.stdout.flush()
        time.sleep(0.5)
        for file in files:
            if not file.exists():
                continue
            size, position = file.stat().st_size, positions.get(file, 0)
            with file.open(errors="replace") as log:
                log.seek(position if size >= position else 0)  # smaller than before: it was rotated
                for line in log:
                    print(f"{file.stem} | {line}" if len(files) > 1 else line, end="")
                positions[file] = log.tell()
