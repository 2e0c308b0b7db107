"""`collect-ops cancel | priority | promote | priority-rules | sweep`: what operators run by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from collect_ops.cli.completion import complete_source

if TYPE_CHECKING:
    from collect_ops.delivery.intervene import Intervened

TaskIds = Annotated[
    list[int] | None,
    typer.Argument(metavar="[TASK]…", help="Numbers of collect tasks; or say which by the options."),
]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the task's log.")]
Source = Annotated[str | None, typer.Option(help="Tasks of this source.", autocompletion=complete_source)]
Lane = Annotated[str | None, typer.Option(help="Tasks in this lane.")]
Status = Annotated[list[str] | None, typer.Option(help="Tasks in this state; may be repeated.")]
OlderThan = Annotated[
    float | None, typer.Option("--older-than", help="Tasks that have waited longer, in seconds.", min=0)
]
SubmittedBy = Annotated[str | None, typer.Option(help="Tasks that this one has submitted.")]
PriorityMax = Annotated[int | None, typer.Option(help="Tasks of this priority or below.", min=0, max=10)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of text.")]


def cancel(
    tasks: TaskIds = None,
    source: Source = None,
    lane: Lane = None,
    status: Status = None,
    older_than: OlderThan = None,
    submitted_by: SubmittedBy = None,
    priority_max: PriorityMax = None,
    reason: Reason = "cancelled by hand",
    as_json: AsJson = False,
) -> None:
    """Cancel tasks: nothing of them lands any more. Exit status 1 when one of them was left as it is."""
    from collect_ops.delivery import intervene
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rules import lane_rules

    ids = _chosen(tasks, source, lane, status, older_than, submitted_by, priority_max)
    done = intervene.cancel(ids, Backends.from_environment(), lane_rules(), actor=_actor(), reason=reason)
    _report(done, "cancelled", as_json=as_json)


def priority(
    to: Annotated[int, typer.Option("--to", help="The new priority, 0 to 10.")],
    tasks: TaskIds = None,
    source: Source = None,
    lane: Lane = None,
    status: Status = None,
    older_than: OlderThan = None,
    submitted_by: SubmittedBy = None,
    priority_max: PriorityMax = None,
    reason: Reason = "changed by hand",
    as_json: AsJson = False,
) -> None:
    """Give waiting tasks another priority. Exit status 1 when one of them was left as it is."""
    from collect_ops.delivery import priorities
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rules import lane_rules

    ids = _chosen(tasks, source, lane, status, older_than, submitted_by, priority_max)
    done = priorities.adjust(
        ids, to, Backends.from_environment(), lane_rules(), actor=_actor(), reason=reason
    )
    _report(done, f"now of priority {to}", as_json=as_json)


def promote(
    tasks: TaskIds = None,
    source: Source = None,
    lane: Lane = None,
    status: Status = None,
    older_than: OlderThan = None,
    submitted_by: SubmittedBy = None,
    priority_max: PriorityMax = None,
    reason: Reason = "promoted by hand",
    as_json: AsJson = False,
) -> None:
    """Make waiting tasks emergencies (priority + 3 as shipped). Exit status 1 when one was left as it is."""
    from collect_ops.delivery import priorities
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rules import lane_rules

    ids = _chosen(tasks, source, lane, status, older_than, submitted_by, priority_max)
    done = priorities.emergency_promote(
        ids, Backends.from_environment(), lane_rules(), actor=_actor(), reason=reason
    )
    _report(done, "promoted", as_json=as_json)


def priority_rules(as_json: AsJson = False) -> None:
    """Show the formula of priorities, and how long a task of each priority can wait at most."""
    from collect_ops.cli.output import print_json, print_table
    from collect_ops.lanes import priority as formulas
    from collect_ops.lanes.rules import lane_rules

    formula, rules = formulas.priority_rules(), lane_rules()
    top = rules.lanes[rules.lane_of(formulas.HIGHEST)]
    rows = []
    for base in range(formulas.HIGHEST + 1):
        # As many ahead of it at the highest priority as its lane has slots, a minute each.
        bound_s = formulas.starvation_bound_s(formula, base, ahead=top.slots, starts_per_s=top.slots / 60)
        rows.append((base, rules.lane_of(base), formulas.seconds_until_highest(formula, base), bound_s))
    if as_json:
        names = ("base", "lane", "highest_after_s", "starts_within_s")
        print_json(
            {"formula": formula.model_dump(), "bounds": [dict(zip(names, row, strict=True)) for row in rows]}
        )
        return
    retry, ageing = formula.retry, formula.ageing
    typer.echo(
        f"priority = base + {formula.emergency} (emergency) + min(retries * {retry.boost}, {retry.most}) + "
        f"{ageing.boost} after {ageing.first_after_s:g} s and after each further {ageing.every_s:g} s of waiting, "
        "within 0 to 10"
    )
    print_table("", ("base", "lane", "at 10 after, s", "starts within, s (a minute a task)"), rows)


def _chosen(
    tasks: list[int] | None,
    source: str | None,
    lane: str | None,
    status: list[str] | None,
    older_than_s: float | None,
    submitted_by: str | None,
    priority_max: int | None,
) -> list[int]:
    from collect_ops.delivery.selection import find, selection_of
    from collect_ops.kernel.backends import Backends

    given = {
        "ids": tasks or None,
        "source": source,
        "lane": lane,
        "status": status or None,
        "older_than_s": older_than_s,
        "submitted_by": submitted_by,
        "priority_max": priority_max,
    }
    return find(selection_of(given), Backends.from_environment())


def _report(done: Intervened, what: str, *, as_json: bool) -> None:
    import os
    from dataclasses import asdict

    from collect_ops.cli.output import FAILED, print_error, print_json
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rest_runs import RestRuns
    from collect_ops.lanes.rules import lane_rules
    from collect_ops.lanes.waking import wake_waiting

    if done.lanes and os.environ.get("COLLECT_AIRFLOW_URL"):
        wake_waiting(done.lanes, Backends.from_environment(), lane_rules(), RestRuns.from_environment())
    if as_json:
        print_json({**asdict(done), "lanes": sorted(done.lanes)})
    else:
        typer.echo(f"{what}: {_named(done.moved)}")
        if done.withdrawn:
            typer.echo(f"of these, collected on for tasks merged into them: {_named(done.withdrawn)}")
        for task_id, rows in sorted(done.landed.items()):
            typer.echo(f"task {task_id} had landed {rows:,} rows; they stay")
    if done.left:
        print_error(f"left as they are (unknown, ended, under way, or so already): {_named(done.left)}")
        raise typer.Exit(FAILED)


def _named(tasks: Sequence[int], most: int = 20) -> str:
    if not tasks:
        return "none"
    more = f" and {len(tasks) - most:,} more" if len(tasks) > most else ""
    return ", ".join(map(str, tasks[:most])) + more


def _actor() -> str:
    import getpass

    return f"cli:{getpass.getuser()}"


def sweep() -> None:
    """Run the sweep once: outbox, repair, wake-ups; prints JSON. The DAG collect_sweep does it when something is due.

    Queues that are missing are declared only with the rights of `make env ALL=1`; without them the sweep names the one
    that is missing.
    """
    from collect_ops.cli.output import print_json
    from collect_ops.delivery.sweep import sweep as sweep_once
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rest_runs import RestRuns
    from collect_ops.lanes.rules import lane_rules
    from collect_ops.orchestrator.rest_reports import RestReports

    runs = RestRuns.from_environment()
    done = sweep_once(
        Backends.from_environment(),
        lane_rules(),
        runs,
        actor=_actor(),
        open_reports=RestReports.from_environment,
    )
    print_json(done.as_counts())
