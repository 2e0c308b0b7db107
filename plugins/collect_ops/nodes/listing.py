"""Nodes as people look at them: those with something in common, and all of them in a sentence. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.nodes.status import NodeStatus

#: States in which a node takes or keeps work.
_LIVING = frozenset({NodeStatus.ACTIVE, NodeStatus.SUSPECT, NodeStatus.DRAINING})


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFilter:
    """What nodes have in common.

    Args:
        states: In one of these states; all when empty.
        labels: With all of these labels; None for whatever the value is.
        search: Holding this in id, name, address or reason, in lower case.
    """

    states: frozenset[str] = frozenset()
    labels: Mapping[str, str | None]
    search: str = ""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of nodes/select_nodes is one of them."""
        own = row["labels"] or {}
        words = " ".join(str(row[name] or "") for name in ("id", "name", "address", "status_reason"))
        return (
            (not self.states or row["status"] in self.states)
            and all(name in own and value in (None, own[name]) for name, value in self.labels.items())
            and self.search in words.casefold()
        )


def filter_of(*, states: Iterable[str], labels: Iterable[str], search: str | None) -> NodeFilter:
    """A filter of what a command line gives.

    Args:
        states: In capitals or not.
        labels: `NAME` or `NAME=VALUE` each.
        search: Part of id, name, address or reason.

    Raises:
        ValidationFailed: Some of it is unfit; all of that is named.
    """
    known = tuple(map(str, NodeStatus))
    wanted = [each.upper() for each in states]
    faults = [
        Fault(field="--state", value=each, problem="is no state of a node", allowed=known)
        for each in wanted
        if each not in known
    ]
    pairs = [each.partition("=") for each in labels]
    faults += [
        Fault(field="--label", value=sign + value, problem="must be NAME or NAME=VALUE")
        for name, sign, value in pairs
        if not name
    ]
    if faults:
        raise ValidationFailed("command line", faults)
    return NodeFilter(
        states=frozenset(wanted),
        labels={name: value if sign else None for name, sign, value in pairs},
        search=(search or "").casefold(),
    )


def summary(rows: Sequence[Mapping[str, Any]], *, of: int) -> str:
    """All of them in a sentence.

    Args:
        rows: The nodes that are shown, rows of nodes/select_nodes.
        of: How many there are.
    """
    count = f"{len(rows):,}" if len(rows) == of else f"{len(rows):,} of {of:,}"
    states = Counter(row["status"] for row in rows)
    parts = [f"{states[each]:,} {each}" for each in NodeStatus if states[each]]
    living = [row for row in rows if row["status"] in _LIVING]
    groups, slots = sum(row["groups"] for row in living), sum(row["slots"] for row in living)
    text = f"{count} node{'' if len(rows) == of == 1 else 's'}" + (f": {', '.join(parts)}" if parts else "")
    return f"{text}; {groups:,} of {slots:,} slots taken" if living else text
