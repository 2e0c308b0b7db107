"""The backlog: what waits in each lane and of each source, how fast it comes and goes, when it will be gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from collect_ops.broker.management import depths_with_unacked
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import LaneRules
from collect_ops.storage import Connection, query

#: Minutes over which rates are counted; the time to drain is told from the middle one.
WINDOWS_MIN = (1, 5, 15)
DRAIN_WINDOW_MIN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The backlog of a lane, a source, or a source within a lane.

    Args:
        depth: Tasks that wait: QUEUED, HELD, and RETRYING that are due.
        held: Of them those that are HELD.
        oldest_s: Seconds that the oldest of them has waited; 0 when nothing waits.
        arrivals: Tasks admitted in the last minutes, a number for each of `WINDOWS_MIN`.
        completions: Tasks that ended in them, cancelled ones excluded.
    """

    depth: int = 0
    held: int = 0
    oldest_s: float = 0.0
    arrivals: tuple[int, ...] = (0, 0, 0)
    completions: tuple[int, ...] = (0, 0, 0)

    @property
    def idle(self) -> bool:
        """Whether nothing waits; tasks may come and end all the same."""
        return self.depth == 0

    @property
    def arrivals_per_s(self) -> tuple[float, ...]:
        """Admitted a second, in each window."""
        return _per_s(self.arrivals)

    @property
    def completions_per_s(self) -> tuple[float, ...]:
        """Ended a second, in each window."""
        return _per_s(self.completions)

    @property
    def drain_s(self) -> float | None:
        """Seconds until nothing waits, as things go; None when it does not shrink."""
        if self.depth == 0:
            return 0.0
        window = WINDOWS_MIN.index(DRAIN_WINDOW_MIN)
        shrinks_per_s = self.completions_per_s[window] - self.arrivals_per_s[window]
        return self.depth / shrinks_per_s if shrinks_per_s > 0 else None

    def as_json(self) -> dict[str, Any]:
        """For programs: the counts, with rates and the time to drain."""
        return {
            "depth": self.depth,
            "held": self.held,
            "oldest_s": round(self.oldest_s, 1),
            "arrivals_per_s": _by_window(self.arrivals_per_s),
            "completions_per_s": _by_window(self.completions_per_s),
            "drain_s": None if self.drain_s is None else round(self.drain_s, 1),
            "grows": self.drain_s is None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The backlog of everything.

    Args:
        parts: By lane and source.
        lanes: By lane; every lane of the rules is there.
        sources: By source, over all lanes.
        messages: Messages of each lane's queue, unacked included; None when the management API was not asked or did
            not answer.
    """

    parts: Mapping[tuple[str, str], Load]
    lanes: Mapping[str, Load]
    sources: Mapping[str, Load]
    messages: Mapping[str, int] | None = None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "lanes": {name: load.as_json() for name, load in self.lanes.items()},
            "sources": {name: load.as_json() for name, load in self.sources.items()},
            "messages": None if self.messages is None else dict(self.messages),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Depths of the last minutes, oldest first, by lane and by source."""

    lanes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    sources: Mapping[str, Sequence[int]] = field(default_factory=dict)


def add_up(loads: Iterable[Load]) -> Load:
    """The backlog of several together."""
    total = Load()
    for load in loads:
        total = Load(
            depth=total.depth + load.depth,
            held=total.held + load.held,
            oldest_s=max(total.oldest_s, load.oldest_s),
            arrivals=_sums(total.arrivals, load.arrivals),
            completions=_sums(total.completions, load.completions),
        )
    return total


def backlog_of(
    parts: Mapping[tuple[str, str], Load], lanes: Iterable[str], messages: Mapping[str, int] | None = None
) -> Backlog:
    """The backlog by lane and by source.

    Args:
        parts: By lane and source.
        lanes: Lanes that are there even when nothing waits in them.
        messages: Messages of each lane's queue.
    """
    named = [*lanes, *sorted({lane for lane, _ in parts} - set(lanes))]
    sources = sorted({source for _, source in parts})
    return Backlog(
        parts=parts,
        lanes={name: add_up(load for (lane, _), load in parts.items() if lane == name) for name in named},
        sources={
            name: add_up(load for (_, source), load in parts.items() if source == name) for name in sources
        },
        messages=messages,
    )


def measure(connection: Connection, rules: LaneRules, messages: Mapping[str, int] | None = None) -> Backlog:
    """Measure the backlog; PostgreSQL is the truth, `messages` only stands beside it."""
    rows = connection.execute(query("lanes/select_backlog")).fetchall()
    return backlog_of({(row["lane"], row["source"]): _load(row) for row in rows}, list(rules.lanes), messages)


def lane_messages(backends: Backends, rules: LaneRules) -> dict[str, int] | None:
    """Messages of each lane's queue, unacked included; None when no management API is set or it did not answer."""
    if backends.rabbitmq_api_url is None:
        return None
    vhost = unquote(urlsplit(backends.amqp_url).path.lstrip("/")) or "/"
    depths = depths_with_unacked(backends.rabbitmq_api_url, vhost)
    return None if depths is None else {lane: depths.get(rules.queue(lane), 0) for lane in rules.lanes}


def sample(connection: Connection, backlog: Backlog, *, keep_s: float) -> int:
    """Keep a minute's sample, unless there is one; prunes old ones. Returns the rows written.

    Args:
        connection: To the database.
        backlog: As measured.
        keep_s: Seconds that samples are kept.
    """
    loads = [
        *((lane, None, load) for lane, load in backlog.lanes.items()),
        *((lane, source, load) for (lane, source), load in backlog.parts.items()),
    ]
    written = connection.execute(
        query("lanes/insert_backlog_samples"),
        {
            "lanes": [lane for lane, _, _ in loads],
            "sources": [source for _, source, _ in loads],
            "depths": [load.depth for _, _, load in loads],
            "oldest_s": [load.oldest_s for _, _, load in loads],
            "arrivals": [load.arrivals[0] for _, _, load in loads],
            "completions": [load.completions[0] for _, _, load in loads],
        },
    ).rowcount
    connection.execute(query("lanes/prune_backlog_samples"), {"keep_s": keep_s})
    return written


def history(connection: Connection, *, minutes: int = 30) -> History:
    """Depths of the last minutes, as sampled; a minute in which a source had nothing has no sample."""
    found: list[dict[str, list[int]]] = []
    for by_source in (False, True):
        rows = connection.execute(
            query("lanes/select_depth_history"), {"minutes": minutes, "by_source": by_source}
        ).fetchall()
        depths: dict[str, list[int]] = {}
        for row in rows:
            depths.setdefault(row["scope"], []).append(row["depth"])
        found.append(depths)
    return History(lanes=found[0], sources=found[1])


def actions_taken(connection: Connection, *, rows: int = 20) -> list[dict[str, Any]]:
    """What rules did last, newest first."""
    return connection.execute(query("lanes/select_backlog_actions"), {"rows": rows}).fetchall()


def _load(row: Mapping[str, Any]) -> Load:
    return Load(
        depth=row["depth"],
        held=row["held"],
        oldest_s=max(0.0, row["oldest_s"]),
        arrivals=tuple(row[f"arrivals_{minutes}"] for minutes in WINDOWS_MIN),
        completions=tuple(row[f"completions_{minutes}"] for minutes in WINDOWS_MIN),
    )


def _sums(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _per_s(counts: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(count / (minutes * 60) for count, minutes in zip(counts, WINDOWS_MIN, strict=True))


def _by_window(rates: tuple[float, ...]) -> dict[str, float]:
    return {f"{minutes}m": round(rate, 4) for rate, minutes in zip(rates, WINDOWS_MIN, strict=True)}
