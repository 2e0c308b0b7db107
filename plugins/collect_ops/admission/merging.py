"""Merging: similar tasks that wait become one (DESIGN guarantee 9).

The oldest of them survives and asks for what all of them ask for; the others are MERGED, point to it, and settle with
it. One transaction raises the survivor's generation and marks the others, or nothing is done. What a claim has in hand
is left alone.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collect_ops.lanes.rules import LaneRules
from collect_ops.sources.declaration import Scalar
from collect_ops.sources.merging import Interval, Part, joined, part_of, with_part
from collect_ops.sources.model import Source
from collect_ops.sources.stored import FORMAT, NewerDefinition, UnreadableDefinition, load_definition
from collect_ops.storage import Connection, Jsonb, query

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A task that waits, and what it asks for."""

    task_id: int
    params: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """Tasks that become one.

    Args:
        survivor: The one that stays: the oldest.
        merged: The others.
        params: What the survivor asks for from now on.
    """

    survivor: int
    merged: tuple[int, ...]
    params: dict[str, Scalar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What a merge did.

    Args:
        into: Survivors by the tasks that were merged into them.
        survivors: The survivors' rows, with what publishing needs, `status` and `params`.
    """

    into: Mapping[int, int] = field(default_factory=dict)
    survivors: tuple[dict[str, Any], ...] = ()


def joints(source: Source, waiting: Sequence[Waiting]) -> list[Joint]:
    """Which of some similar tasks become one. Pure; the order they come in does not matter.

    Args:
        source: Theirs, with `merge` declared.
        waiting: Tasks that are equal but for the mergeable parameters.
    """
    parts = [(each, part) for each in waiting if (part := part_of(source, each.params)) is not None]
    parts.sort(key=lambda pair: (pair[1].low if isinstance(pair[1], Interval) else 0, pair[0].task_id))
    piles: list[tuple[Part, list[Waiting]]] = []
    for each, part in parts:
        whole = joined(source, piles[-1][0], part) if piles else None
        if whole is None:
            piles.append((part, [each]))
        else:
            piles[-1] = (whole, [*piles[-1][1], each])
    return [_joint(source, part, pile) for part, pile in piles if len(pile) > 1]


def _joint(source: Source, part: Part, pile: Sequence[Waiting]) -> Joint:
    oldest, *others = sorted(pile, key=lambda each: each.task_id)
    return Joint(
        survivor=oldest.task_id,
        merged=tuple(each.task_id for each in others),
        params=with_part(source, oldest.params, part),
    )


def merge_waiting(
    connection: Connection,
    rules: LaneRules,
    sources: Mapping[bytes, Source],
    *,
    actor: str,
    late_s: float = 0.0,
) -> Merged:
    """Merge what waits under some merge keys, in the caller's transaction.

    Args:
        connection: In a transaction.
        rules: Lane rules: a survivor that gets a higher priority may change lanes.
        sources: Merge keys with the declaration that their tasks were admitted with.
        actor: For the task log.
        late_s: Seconds by which this comes later than the tasks themselves; added to the sources' windows.
    """
    keys = sorted(key for key in sources if key)
    if not keys:
        return Merged()
    windows = [sources[key].merge_window_seconds + late_s for key in keys]
    rows = connection.execute(
        query("admission/lock_mergeable"), {"keys": keys, "windows_s": windows}
    ).fetchall()
    by_key: defaultdict[bytes, list[Waiting]] = defaultdict(list)
    for row in rows:
        by_key[bytes(row["merge_key"])].append(Waiting(task_id=row["id"], params=row["params"]))
    found = [joint for key, waiting in by_key.items() for joint in joints(sources[key], waiting)]
    return _merge(connection, rules, found, actor) if found else Merged()


def _merge(connection: Connection, rules: LaneRules, found: Sequence[Joint], actor: str) -> Merged:
    into = {task_id: joint.survivor for joint in found for task_id in joint.merged}
    pairs = {"merged": list(into), "survivors": list(into.values()), "actor": actor}
    survivors = connection.execute(
        query("admission/extend_survivors"),
        {
            **pairs,
            "extended": [joint.survivor for joint in found],
            "params": [Jsonb(joint.params) for joint in found],
            "lanes": [rules.lane_of(priority) for priority in range(11)],
        },
    ).fetchall()
    connection.execute(query("admission/merge_tasks"), pairs)
    # Those that had been merged into a task which is now merged itself wait for the same work from now on.
    connection.execute(query("admission/repoint_merged"), pairs)
    return Merged(into=into, survivors=tuple(survivors))


def narrow(connection: Connection, survivors: Sequence[int]) -> list[int]:
    """Survivors that lost a caller and were never claimed ask for no more than the others want.

    What the others want together is not always one part (the middle of three ranges is gone): then it stays as it is.

    Args:
        connection: In a transaction.
        survivors: Their ids.

    Returns:
        The survivors that ask for less now.
    """
    values = {"task_ids": list(survivors), "format": FORMAT}
    rows = connection.execute(query("admission/lock_survivors"), values).fetchall()
    wanted: defaultdict[int, list[Mapping[str, Scalar]]] = defaultdict(list)
    for row in rows:
        if not row["withdrawn"]:
            wanted[row["id"]].append(row["own_params"])
    named = {"task_ids": [row["id"] for row in rows]}
    for member in connection.execute(query("admission/select_merged"), named).fetchall():
        wanted[member["merged_into"]].append(member["params"])
    less = {
        row["id"]: params
        for row in rows
        if (source := _admitted(row)) is not None
        and (params := _together(source, wanted[row["id"]]))
        and params != row["params"]
    }
    if less:
        values = {"task_ids": list(less), "params": [Jsonb(params) for params in less.values()]}
        connection.execute(query("admission/set_params"), values)
    return sorted(less)


def _admitted(row: Mapping[str, Any]) -> Source | None:
    """What a survivor was admitted with; None when this process cannot read it: it asks for what it asked for."""
    try:
        return load_definition(row["version"], row["format"], row["definition"])
    except (NewerDefinition, UnreadableDefinition) as error:
        log.warning("survivor %s asks for as much as before: %s", row["id"], error)
        return None


def _together(source: Source, wanted: Sequence[Mapping[str, Scalar]]) -> dict[str, Scalar] | None:
    """The parameters that ask for all of it; None when that is not one part."""
    waiting = [Waiting(task_id=number, params=params) for number, params in enumerate(wanted)]
    if len(waiting) == 1:
        return dict(waiting[0].params)
    found = joints(source, waiting)
    whole = len(found) == 1 and len(found[0].merged) == len(waiting) - 1
    return found[0].params if whole else None
