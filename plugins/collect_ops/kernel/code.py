"""Which code this is: a process goes on with what it has loaded, whatever the checkout holds by then."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from collect_ops.kernel.paths import include_dir

#: Folders of `include/` that belong to the code; the rest is the installation's own, or applied once.
_CODE_IN_INCLUDE = ("lua", "messages", "sql/queries")
_SHOWN = 12


def digest_of(files: Iterable[Path], root: Path) -> str:
    """A digest of files by name and content.

    Args:
        files: What to read; what is not there counts as such.
        root: Names are taken from here on, so that two checkouts of one commit are alike.
    """
    digest = hashlib.sha256()
    for file in sorted(set(files)):
        content = file.read_bytes() if file.is_file() else None
        name = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
        digest.update(f"{name}\0{-1 if content is None else len(content)}\0".encode())
        digest.update(content or b"")
    return digest.hexdigest()


def code_files(root: Path | None = None) -> list[Path]:
    """The modules of `plugins/`, the statements and scripts that they execute, and the versions of what they import.

    Args:
        root: A checkout; the one that this module belongs to when not given.
    """
    plugins = (root / "plugins") if root else Path(__file__).resolve().parents[2]
    include = (root / "include") if root else include_dir()
    files = [file for file in plugins.rglob("*") if file.suffix in (".py", ".json", ".typed")]
    for folder in _CODE_IN_INCLUDE:
        files += [file for file in (include / folder).rglob("*") if file.is_file()]
    files.append(plugins.parent / "requirements.lock")
    return [file for file in files if "__pycache__" not in file.parts]


def code_digest(root: Path | None = None) -> str:
    """A digest of `code_files`, as they are now."""
    base = root or Path(__file__).resolve().parents[3]
    return digest_of(code_files(root), base)


def version_with_code() -> str:
    """The installed version and the beginning of the code's digest, as in `0.2.0+1f2e3d4c5b6a`.

    Processes that say the same run the same code.
    """
    try:
        installed = version("collect-ops")
    except PackageNotFoundError:
        installed = "none"
    return f"{installed}+{code_digest()[:_SHOWN]}"
