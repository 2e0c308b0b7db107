"""An environment for each lock: what runs keeps the packages that it has started with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stack.layout import CHECKOUT

PROJECT = """
[project]
name = "project"
version = "1"
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[tool.setuptools]
packages = []
"""
UV = CHECKOUT / ".stack" / "uv"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project with nothing in it, and the checkout's uv."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(CHECKOUT / "scripts" / "bootstrap.sh", tmp_path / "scripts")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / ".stack").mkdir()
    (tmp_path / ".stack" / "uv").symlink_to(UV)
    return tmp_path


def bootstrap(checkout: Path, version: str) -> str:
    (checkout / "some.lock").write_text(f"six=={version}\n")
    done = subprocess.run(
        ["scripts/bootstrap.sh"], cwd=checkout, env={**os.environ, "LOCK": "some.lock"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def present(checkout: Path) -> Path:
    return (checkout / ".stack" / "venv").resolve()


def version_in(folder: Path) -> str:
    code = "import six; print(six.__version__)"
    return subprocess.run(
        [folder / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_another_lock_changes_nothing_under_what_runs(checkout: Path) -> None:
    bootstrap(checkout, "1.16.0")
    first = present(checkout)
    assert bootstrap(checkout, "1.16.0") == "", "it does nothing when all is there"
    imports_late = "import sys; print(flush=True); sys.stdin.read(); import six; print(six.__version__)"
    with subprocess.Popen(
        [first / "bin" / "python", "-c", imports_late],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        for version in ("1.17.0", "1.15.0", "1.14.0"):
            bootstrap(checkout, version)
            assert version_in(checkout / ".stack" / "venv") == version
        assert process.communicate()[0].strip() == "1.16.0"
    assert len(list((checkout / ".stack" / "venvs").iterdir())) == 3, "in use, the last one, the present one"
    assert "filling" not in bootstrap(checkout, "1.15.0"), "the way back is there"
    assert version_in(checkout / ".stack" / "venv") == "1.15.0"


def test_the_folder_of_an_earlier_release_becomes_a_link(checkout: Path) -> None:
    bootstrap(checkout, "1.16.0")
    made = present(checkout)
    (checkout / ".stack" / "venv").unlink()
    made.rename(checkout / ".stack" / "venv")
    assert bootstrap(checkout, "1.16.0") == "", "what holds what it should stays as it is"
    assert not (checkout / ".stack" / "venv").is_symlink()
    bootstrap(checkout, "1.17.0")
    assert (checkout / ".stack" / "venv").is_symlink()
    assert version_in(present(checkout)) == "1.17.0"


def test_the_stack_starts_programs_from_the_environments_own_folder(tmp_path: Path) -> None:
    link = tmp_path / "venv"
    link.symlink_to(Path(sys.prefix).resolve())
    code = (
        "import runpy, sys, os; sys.argv = ['stack', '--help'];"
        "os.execv = lambda path, arguments: (print(path, *arguments[1:]), os._exit(0));"
        "runpy.run_module('stack', run_name='__main__')"
    )
    done = subprocess.run(
        [link / "bin" / "python", "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [f"{Path(sys.prefix).resolve()}/bin/python", "-m", "stack", "--help"]
