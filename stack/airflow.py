"""Airflow: users, metadata database, pools, and collect-ops' own migrations."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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
    """Bring collect-ops' own database to this checkout's schema.

    Raises:
        CommandFailed: a migration failed.
    """
    package = stack.layout.checkout / "plugins" / "collect_ops" / "storage"
    if (package / "migrate.py").exists() or (package / "migrate" / "__main__.py").exists():
        say("migrating the collect_ops database")
        run(stack, [sys.executable, "-m", "collect_ops.storage.migrate"])


def declare_topology(stack: Stack) -> None:
    """Declare the exchanges and queues of collect-ops, so that the first task finds its lane.

    Raises:
        CommandFailed: one of them exists in another form; its message says what to do.
    """
    run(stack, [sys.executable, "-m", "collect_ops.cli", "topology"])


def run(stack: Stack, command: list[str]) -> None:
    """Run a set-up command with the environment of the Airflow processes, as the owner.

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
    if done.returncode != 0:
        words = " ".join(Path(part).name for part in command)
        raise CommandFailed(words, done.returncode, done.stdout + done.stderr)
