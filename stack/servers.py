"""Where the three servers come from: this system, or the file tree of another Debian beside it.

A tree is what `debootstrap` makes (`scripts/bootstrap.sh servers`). A server of it has a mount namespace of its own,
in which the tree's /usr lies over the system's: it has the programs and libraries of the other release, and the paths,
users and addresses of this one, so that all else of the stack stays as it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stack.faults import BadSetting
from stack.layout import runs_as_root

if TYPE_CHECKING:
    from stack.settings import Stack

VARIABLE = "SERVER_TREE"
# The shell is in memory by then, and what it executes next is the tree's.
_ENTER = 'mount --bind "$0" /usr && exec "$@"'


def chosen(known: str | None, environment: Mapping[str, str], *, is_new: bool) -> str | None:
    """The tree to take the servers from: what the environment says, else what was remembered; None for this system.

    Args:
        known: What was remembered.
        environment: May name another one, if the stack is new.
        is_new: Whether it has no data yet: those of one release cannot be read by an older one.

    Raises:
        BadSetting: It is no such tree, this user cannot use one, or the stack has the servers of another.
    """
    given = environment.get(VARIABLE)
    if not given:
        return known
    tree = str(Path(given).resolve())
    if tree == known:
        return known
    if not is_new:
        allowed = (
            f"{known or 'nothing'}, which this stack was made with; another one needs a STACK_HOME of its own"
        )
        raise BadSetting(VARIABLE, given, allowed)
    if not (Path(tree) / "usr" / "bin").is_dir():
        raise BadSetting(VARIABLE, given, "a folder with a Debian in it (usr/bin)")
    if not runs_as_root():
        raise BadSetting(VARIABLE, given, "nothing, but for root: nobody else mounts")
    return tree


def root(stack: Stack) -> Path:
    """The folder below which the servers' `usr` is."""
    return Path(stack.server_tree or "/")


def command(stack: Stack, arguments: list[str], user: str | None = None) -> list[str]:
    """What to execute for a program of a stack's servers: `inside` its tree, if it has one."""
    return inside(stack.server_tree, arguments, user)


def inside(tree: str | None, arguments: list[str], user: str | None = None) -> list[str]:
    """What to execute for a program of a tree.

    Args:
        tree: Where it comes from; None for this system.
        arguments: The program with its arguments, as it sees its path.
        user: Who to become, once inside; with this system's programs the caller does so itself.
    """
    if tree is None:
        return arguments
    drop = ["/usr/bin/setpriv", "--reuid", user, "--regid", user, "--clear-groups"] if user else []
    enter = ["/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", _ENTER]
    return [*enter, str(Path(tree) / "usr"), *drop, *arguments]


def which(stack: Stack, name: str) -> str | None:
    """A program's path as its server sees it: the tree's, else what this system's PATH says."""
    if stack.server_tree is None:
        return shutil.which(name)
    path = Path("/usr/bin") / name
    return str(path) if (root(stack) / path.relative_to("/")).exists() else None
