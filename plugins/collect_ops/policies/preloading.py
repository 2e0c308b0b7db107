"""Everything of ours that a process may ever need, read at its start.

A checkout changes under running processes: `git pull` brings statements and modules of the next release, and what a
process reads only when it first needs it would be of another release than what it has read already.
"""

from __future__ import annotations

import importlib
import pkgutil

import collect_ops
from collect_ops.coordination.limiter import read_scripts
from collect_ops.storage.queries import read_queries

#: Commands are processes of their own, and a policy is imported by who needs it.
NOT_NEEDED = ("cli", "policies")


def read_everything() -> None:
    """Import our modules and read the statements and scripts that they execute; opens no socket, starts no thread."""
    for package in pkgutil.iter_modules(collect_ops.__path__, "collect_ops."):
        if package.name.rpartition(".")[2] not in NOT_NEEDED:
            _import(package)
    read_queries()
    read_scripts()


def _import(found: pkgutil.ModuleInfo) -> None:
    module = importlib.import_module(found.name)
    if found.ispkg:
        for each in pkgutil.iter_modules(module.__path__, f"{found.name}."):
            _import(each)
