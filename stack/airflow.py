"""Airflow: users, metadata database, pools, and collect-ops' own migrations."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from collect_ops.nodes.machine import node_id_of
from collect_ops.storage.migrate import WAITS
from stack import env_files, environment
from stack.credentials import write_private
from stack.faults import CommandFailed
from stack.pools import pools
from stack.settings import Stack, read_settings, remember


def executable() -> Path:
    """The airflow command of this environment."""
    return Path(sys.executable).with_name("airflow")


def configure(stack: Stack) -> None:
    """Write the file of UI passwords; the users stand in config/airflow.env."""
    write_private(stack.layout.airflow_home / "passwords.json", json.dumps(env_files.passwords(stack.places)))


def prepare(stack: Stack, say: Callable[[str], None]) -> None:
    """Bring the metadata database and the pools to what this checkout needs; does nothing when they are.

    Args:
        stack: The stack, its PostgreSQL running.
        say: Called with a line before each step.

    Raises:
        CommandFailed: Airflow refused.
    """
    known = read_settings(stack.layout)
    version = importlib.metadata.version("apache-airflow-core")
    if known.get("airflow_migrated") != version:
        say(f"migrating Airflow's metadata database to {version}")
        run(stack, [str(executable()), "db", "migrate"])
        remember(stack.layout, airflow_migrated=version)
    wanted = json.dumps(pools(), indent=2)
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    if known.get("pools_imported") != digest:
        say("importing the lanes' pools")
        file = stack.layout.etc / "pools.json"
        write_private(file, wanted)
        run(stack, [str(executable()), "pools", "import", str(file)])
        remember(stack.layout, pools_imported=digest)


def migrate_collect_ops(stack: Stack, say: Callable[[str], None]) -> None:
    """Bring collect-ops' own database to what this checkout's processes need; those of the last release go on.

    Raises:
        CommandFailed: a migration failed.
    """
    say("migrating the collect_ops database")
    run(stack, [sys.executable, "-m", "collect_ops.storage.migrate", "before"])


def finish_collect_ops(stack: Stack, say: Callable[[str], None]) -> None:
    """The migrations that need that no process of the last release is left.

    Raises:
        CommandFailed: a migration failed.
    """
    # Our own nodes were restarted just now; the registry hears of it with their next heartbeat.
    own = stack.nodes.ids or (node_id_of(os.environ.get("COLLECT_NODE_ID")),)
    command = [sys.executable, "-m", "collect_ops.storage.migrate", "after", *own]
    output = run(stack, command, allowed=(0, WAITS))
    if output:
        say(output.strip())


def declare_topology(stack: Stack) -> None:
    """Declare the exchanges and queues of collect-ops, so that the first task finds its lane.

    Raises:
        CommandFailed: one of them exists in another form; its message says what to do.
    """
    run(stack, [sys.executable, "-m", "collect_ops.cli", "topology"])


def run(stack: Stack, command: list[str], *, allowed: tuple[int, ...] = (0,)) -> str:
    """Run a set-up command with the environment of the Airflow processes, as the owner; returns what it wrote.

    Args:
        stack: The stack.
        command: What to run.
        allowed: Exit statuses that are no error.

    Raises:
        CommandFailed: it ended with an error; its output is in the message.
    """
    done = subprocess.run(
        command,
        env={**environment.base(), **environment.owner(stack)},
        cwd=stack.layout.work,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in allowed:
        words = " ".join(Path(part).name for part in command)
        raise CommandFailed(words, done.returncode, done.stdout + done.stderr)
    return done.stdout
