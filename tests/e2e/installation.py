"""A checkout of release 0.1.0 in a folder of its own, which becomes this one while its stack runs, as by `git pull`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from stack import processes
from stack.layout import CHECKOUT, Layout
from tests.e2e.node_stack import exports_in, names_a_stack

RELEASE = "c3ff294"
UP_TIMEOUT_S = 1200


@dataclass(slots=True, kw_only=True)
class Installation:
    """A checkout in a folder of its own, and its stack."""

    folder: Path
    layout: Layout
    sources: Mapping[str, Any]

    @classmethod
    def of_release(cls, base: Path, sources: Mapping[str, Any] | None = None) -> Installation:
        """The release's files, and the sources of this test."""
        archive = subprocess.run(
            ["git", "-C", str(CHECKOUT), "archive", RELEASE], capture_output=True, check=False
        )
        if archive.returncode != 0:
            pytest.skip(f"git does not have commit {RELEASE}: {archive.stderr.decode().strip()}")
        folder = base / "checkout"
        folder.mkdir()
        subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
        layout = Layout(home=base / "home", checkout=folder)
        made = cls(folder=folder, layout=layout, sources=sources or {})
        made.declare()
        return made

    def declare(self) -> None:
        """Write the sources of this test; examples of the checkout are left out: they are noise here."""
        for file in (self.folder / "include" / "sources").glob("*.yaml"):
            file.unlink()
        for name, source in self.sources.items():
            text = yaml.safe_dump(source, sort_keys=False)
            (self.folder / "include" / "sources" / f"{name}.yaml").write_text(text)

    def pull(self) -> None:
        """Have the files of this checkout in place of the release's, uncommitted ones included."""
        listed = subprocess.run(
            ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        for part in ("plugins", "stack", "dags", "config", "include", "scripts"):
            shutil.rmtree(self.folder / part)
        for name in filter(None, listed.stdout.split("\0")):
            if (CHECKOUT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, self.folder / name)
        self.declare()

    def run(self, module: str, *arguments: str, **variables: str) -> str:
        """A command of the checkout, on its stack; fails when it does."""
        own = {key: value for key, value in os.environ.items() if not names_a_stack(key)}
        own |= {"STACK_HOME": str(self.layout.home), "PYTHONPATH": f"{self.folder}:{self.folder / 'plugins'}"}
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.folder, env={**own, **variables}, capture_output=True, text=True, check=False,
            timeout=UP_TIMEOUT_S,
        )  # fmt: skip
        assert done.returncode == 0, (
            f"{module} {' '.join(arguments)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        )
        return done.stdout

    def start_release(self, *arguments: str) -> None:
        """Bring its stack up; on a slow machine the release gives up while its services still start."""
        for patience in range(4):
            try:
                self.run("stack", "up", *arguments)
            except AssertionError:
                if patience == 3:
                    raise
            else:
                return

    def exports(self, *arguments: str) -> dict[str, str]:
        """What `stack env` says."""
        return {**exports_in(self.run("stack", "env", *arguments)), "STACK_HOME": str(self.layout.home)}

    def remove(self) -> None:
        """Stop it, whatever state it is in, and remove its data."""
        for process in processes.leftovers(self.layout):
            _continue(process)
        self.run("stack", "clean", "--yes")
        assert processes.leftovers(self.layout) == []


def _continue(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:
        time.sleep(0)  # it has ended by itself
