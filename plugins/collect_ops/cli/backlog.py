"""`collect-ops backlog`: what waits, how fast it comes and goes, what the rules do about it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from collect_ops.cli.task import AsJson

if TYPE_CHECKING:
    from collect_ops.lanes.backlog import Backlog, History, Load

_BARS = "▁▂▃▄▅▆▇█"
_TREND_WIDTH = 30


def backlog(
    all_: Annotated[
        bool, typer.Option("--all", "-a", help="Idle sources too; JSON has them always.")
    ] = False,
    as_json: AsJson = False,
    watch: Annotated[
        float | None, typer.Option(help="Show it anew every so many seconds, until interrupted.", min=1)
    ] = None,
) -> None:
    """Show the backlog of each lane and source: depth, oldest, rates, time to drain, the last half hour.

    A source is idle when nothing of it waits: what comes begins at once. Those idle for 15 minutes are in no list.

    Example: collect-ops backlog --watch 5
    """
    while True:
        _show(all_=all_, as_json=as_json)
        if watch is None:
            return
        time.sleep(watch)


def _show(*, all_: bool, as_json: bool) -> None:
    from collect_ops.cli.output import print_json, print_table
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.backlog import actions_taken, history, lane_messages, measure
    from collect_ops.lanes.rules import lane_rules
    from collect_ops.storage import connect

    backends, rules = Backends.from_environment(), lane_rules()
    messages = lane_messages(backends, rules)
    with connect(backends.postgres_dsn, application_name="collect-ops cli") as connection:
        found = measure(connection, rules, messages)
        past = history(connection, minutes=_TREND_WIDTH)
        actions = actions_taken(connection, rows=10)
    if as_json:
        print_json({**found.as_json(), "actions": actions})
        return
    headings = ("", "waiting", "held", "queued", "oldest", "in/s", "out/s", "gone in", "last half hour")
    idle = set() if all_ else {name for name, load in found.sources.items() if load.idle}
    print_table(
        "", headings, _rows(found, past, idle), spare=("last half hour", "queued", "held", "in/s", "out/s")
    )
    if idle:
        typer.echo(f"{len(idle):,} idle source{'s' if len(idle) > 1 else ''}: --all shows them")
    if actions:
        print_table(
            "What the rules did",
            ("since", "rule", "for", "action", "set to", "because", "undone"),
            [
                (
                    f"{row['asked_at']:%H:%M:%S}",
                    row["rule"],
                    row["scope"],
                    row["action"],
                    row["value_after"],
                    row["problem"] or row["reason"],
                    f"{row['undone_at']:%H:%M:%S}" if row["undone_at"] else "",
                )
                for row in actions
            ],
        )


def _rows(found: Backlog, past: History, hidden: Collection[str]) -> Iterator[Sequence[object]]:
    for name, load in found.lanes.items():
        messages = "" if found.messages is None else found.messages.get(name, 0)
        yield _row(f"lane {name}", load, messages, past.lanes.get(name, ()))
    for name, load in found.sources.items():
        if name in hidden:
            continue
        yield _row(f"source {name}", load, "", past.sources.get(name, ()))


def _row(name: str, load: Load, messages: object, depths: Sequence[int]) -> Sequence[object]:
    return (
        name,
        f"{load.depth:,}",
        f"{load.held:,}",
        messages,
        _seconds(load.oldest_s),
        f"{load.arrivals_per_s[1]:.2f}",
        f"{load.completions_per_s[1]:.2f}",
        "grows" if load.drain_s is None else _seconds(load.drain_s),
        trend(depths),
    )


def trend(depths: Sequence[int]) -> str:
    """A bar a minute, the highest of them full; nothing for no depths."""
    last = depths[-_TREND_WIDTH:]
    top = max(last, default=0)
    if top == 0:
        return ""
    return "".join(_BARS[min(len(_BARS) - 1, depth * len(_BARS) // (top + 1))] for depth in last)


def _seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
