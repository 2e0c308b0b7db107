"""Settling: the shards' results become the task's, once an attempt.

Called by the shard group that finished a task's last shard, by the run's settle task, and by the repair pass: whoever
comes first moves the task, the others move nothing.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from collect_ops.broker.publisher import Publisher
from collect_ops.collectors.totals import is_at_least
from collect_ops.execution.cutting import pace_unit
from collect_ops.execution.merged import Callers, callers_of, settle_merged, survivors_own
from collect_ops.execution.policy import (
    MAX_REASON_CHARS,
    Attempt,
    Loss,
    Outcome,
    ShardSums,
    hopeless,
    settle_outcome,
)
from collect_ops.execution.rules import sharding_rules
from collect_ops.journal.trace import Stage, TraceRow, write_traces
from collect_ops.kernel.backends import Backends
from collect_ops.landing.errors import AsideMissing
from collect_ops.landing.model import Swap
from collect_ops.landing.repeated import count_repeated, counts_at_landing
from collect_ops.landing.table import drop_aside, swap
from collect_ops.lanes.held import release_held
from collect_ops.lanes.priority import priority_of, priority_rules
from collect_ops.lanes.publication import Publication, publication_of, publish
from collect_ops.lanes.rules import LaneRules
from collect_ops.sources.model import Disposition, Source, Target
from collect_ops.sources.stored import NewerDefinition, UnreadableDefinition, load_definition
from collect_ops.storage import Connection, Jsonb, connect, errors, query
from collect_ops.tasks.lifecycle import TaskStatus

log = logging.getLogger(__name__)

_PUBLISHED = frozenset({TaskStatus.RETRYING, TaskStatus.QUEUED})
_AGAIN = _PUBLISHED | {TaskStatus.HELD, TaskStatus.DISPATCH_FAILED}
#: Ends with which a table has its new rows.
_LANDED = frozenset({TaskStatus.COMPLETED, TaskStatus.PARTIAL})
#: What becomes of a replacement that leaves the table as it was.
_UNCHANGED = frozenset({Swap.KEPT, Swap.SUPERSEDED})
#: Ends that Airflow has to show, although the run's own tasks went well.
_NOTED = frozenset({TaskStatus.DEAD, TaskStatus.PARTIAL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of a task's attempt."""

    task_id: int
    attempt: int
    status: TaskStatus
    reason: str | None
    lanes: frozenset[str]


def settle(
    task_id: int,
    attempt: int,
    backends: Backends,
    rules: LaneRules,
    *,
    actor: str,
    run_over: bool,
    run_id: str | None = None,
    loss: Loss | None = None,
) -> Settled | None:
    """Settle a task's attempt on a connection of its own: see `settle_on`."""
    with connect(backends.postgres_dsn, application_name="collect-ops settle") as connection:
        return settle_on(
            connection,
            task_id,
            attempt,
            backends,
            rules,
            actor=actor,
            run_over=run_over,
            run_id=run_id,
            loss=loss,
        )


def settle_on(
    connection: Connection,
    task_id: int,
    attempt: int,
    backends: Backends,
    rules: LaneRules,
    *,
    actor: str,
    run_over: bool,
    run_id: str | None = None,
    loss: Loss | None = None,
) -> Settled | None:
    """Settle a task's attempt, publish what follows from it, and close its run's groups if the run is over.

    Args:
        connection: Autocommit, in no transaction.
        task_id: The collect task.
        attempt: The attempt to settle; another one is not touched.
        backends: Where the services are.
        rules: Lane rules.
        actor: Who settles, for the task log.
        run_over: The attempt's run has no living shard group: what is unfinished now was lost.
        run_id: Settle only if the attempt is this run's; None asks for no run.
        loss: How the attempt was lost, when the caller knows.

    Returns:
        What became of it; None when there was nothing to settle: shards that may still succeed and the run not over, or
        another was faster.
    """
    publications = _COUNT_AGAIN
    while publications is _COUNT_AGAIN:
        settled, publications = _settle(
            connection,
            task_id,
            attempt,
            rules,
            actor=actor,
            run_over=run_over,
            run_id=run_id,
            loss=loss,
            repeated=_count_repeated(connection, task_id, attempt),
        )
    if settled is None:
        return None
    if publications.unit is not None:
        _record_pace(connection, task_id, attempt, publications)
    # A host that is in order again has tasks of other sources waiting for it, too.
    held = release_held(
        connection,
        rules.host,
        source=publications.source,
        host=publications.host,
        actor=actor,
        spared=publications.left,
    )
    follow_up = [*publications.items, *(publication_of(row) for row in held)]
    if follow_up:
        with Publisher(backends.amqp_url) as publisher:
            publish(connection, publisher, rules, follow_up)
    lanes = frozenset(publication.lane for publication in follow_up if publication.delay_s <= 0)
    log.info(
        "task %s attempt %s: %s%s",
        task_id,
        attempt,
        settled.status,
        f" ({settled.reason})" if settled.reason else "",
    )
    return Settled(
        task_id=task_id, attempt=attempt, status=settled.status, reason=settled.reason, lanes=lanes
    )


@dataclass(frozen=True, slots=True)
class _FollowUp:
    """What a settled attempt has to tell others.

    Args:
        source: Its source, which has room for another.
        host: The connection that it asked.
        items: What is to be published.
        unit: What the pace of its shards is measured in; None where it tells nothing.
        left: The task, when it waits for a process of a newer release: let go of at once, the next one of this release
            would only hand it back again.
    """

    source: str = ""
    host: str = ""
    items: tuple[Publication, ...] = ()
    unit: str | None = None
    left: int | None = None


_NOTHING = _FollowUp()
#: The last shard has ended since repeated rows were counted: nothing is settled yet.
_COUNT_AGAIN = _FollowUp()


@dataclass(frozen=True, slots=True)
class _Repeated:
    """Rows that an attempt has fetched twice.

    Args:
        rows: How many; None where landing counts them, or nobody does.
        final: Every shard had ended when they were counted.
    """

    rows: int | None = None
    final: bool = False


#: Seconds of fetching and landing below which a task tells nothing of its source's pace: it was all overhead.
TELLING_S = 1.0


def _record_pace(connection: Connection, task_id: int, attempt: int, settled: _FollowUp) -> None:
    """After the commit: many tasks of a source settle at once, and a lost record costs nothing."""
    values = {"task_id": task_id, "attempt": attempt, "source": settled.source, "unit": settled.unit}
    connection.execute(query("execution/record_pace"), {**values, "history": sharding_rules().history})


def _telling_unit(source: Source | None, sums_row: dict[str, Any]) -> str | None:
    if source is None or sums_row["done"] == 0 or sums_row["fetch_s"] + sums_row["land_s"] < TELLING_S:
        return None
    return pace_unit(source)


def _count_repeated(connection: Connection, task_id: int, attempt: int) -> _Repeated:
    """Rows that an attempt has fetched twice, where landing has not counted them; before anybody waits for locks."""
    landed = connection.execute(
        query("execution/select_landed"), {"task_id": task_id, "attempt": attempt}
    ).fetchone()
    if landed is None or not landed["final"]:
        return _Repeated()
    source, _ = _source_of(landed)
    if source is None or counts_at_landing(source.target):
        return _Repeated(final=True)
    rows = count_repeated(connection, source.target, task_id, rows_landed=landed["rows_landed"])
    return _Repeated(rows=rows, final=True)


def _source_of(task: dict[str, Any]) -> tuple[Source, None] | tuple[None, Outcome]:
    """The declaration that a task was admitted with; else where the task goes without it.

    What is damaged ends DEAD with the reason: raised, it would be raised again by every repair. What only a newer
    release can read waits for its processes, and nothing is counted.
    """
    try:
        return load_definition(task["version"], task["format"], task["definition"]), None
    except NewerDefinition as newer:
        return None, Outcome(status=TaskStatus.HELD, reason=str(newer))
    except UnreadableDefinition as error:
        return None, Outcome(status=TaskStatus.DEAD, reason=str(error)[:MAX_REASON_CHARS])


def _settle(
    connection: Connection,
    task_id: int,
    attempt: int,
    rules: LaneRules,
    *,
    actor: str,
    run_over: bool,
    run_id: str | None,
    loss: Loss | None,
    repeated: _Repeated,
) -> tuple[Outcome | None, _FollowUp]:
    began = time.perf_counter()
    with connection.transaction():
        task = connection.execute(
            query("execution/lock_running"),
            {"task_id": task_id, "attempt": attempt, "patience_s": rules.host.patience_s},
        ).fetchone()
        # Anybody who may start a collect run can write another run's tasks into its conf.
        if task is None or run_id not in (None, task["run_id"]):
            return None, _NOTHING
        sums_row = _one(connection, "execution/sum_shards", {"task_id": task_id})
        planned = task["shards_total"] is not None and task["status"] != TaskStatus.CLAIMED
        source, refused_outcome = _source_of(task)
        at_landing = source is not None and counts_at_landing(source.target)
        sums_row = {**sums_row, "repeated": sums_row["rows_repeated"] if at_landing else repeated.rows}
        sums = _sums(sums_row)
        if sums.shards and sums.final and not repeated.final:
            return None, _COUNT_AGAIN
        ripe = sums.final or (source is not None and hopeless(sums, source.max_failed_shards))
        if not run_over and not (planned and ripe and task["plan_error"] is None):
            return None, _NOTHING
        loss = loss or _handed_back(task)
        if source is None:
            outcome, swapped = cast("Outcome", refused_outcome), None
        else:
            outcome, swapped = _outcome(connection, task, source, sums, rules, planned=planned, loss=loss)
        callers = None if outcome.status in _AGAIN else callers_of(connection, task, source)
        own = outcome if callers is None else survivors_own(task, outcome)
        refused = loss.nodes if loss is not None and outcome.status in _AGAIN else ()
        moved = _move(
            connection,
            task,
            source,
            {**sums_row, "swap": swapped},
            own,
            rules,
            actor,
            run_over=run_over,
            callers=callers,
            refused=refused,
        )
        if source is not None and outcome.status in _LANDED and swapped not in _UNCHANGED:
            _record_table_event(connection, task, source.target, sums_row)
        if outcome.status in _NOTED:
            _insert_run_note(connection, task, outcome, own)
        if callers is not None:
            error = task["plan_error"] or sums.first_error
            settle_merged(connection, task, callers, outcome, error=error, actor=actor)
        write_traces(
            connection,
            [
                TraceRow(
                    task_id=task_id,
                    stage=Stage.SETTLE,
                    attempt=attempt,
                    duration_s=time.perf_counter() - began,
                    rows=sums.rows_fetched,
                    bytes=sums_row["bytes"],
                    response={"status": outcome.status, "reason": outcome.reason, "delay_s": outcome.delay_s},
                    error=task["plan_error"] or sums.first_error,
                )
            ],
        )
    items = (publication_of(moved, delay_s=outcome.delay_s),) if outcome.status in _PUBLISHED else ()
    return own, _FollowUp(
        source=task["source"],
        host=task["connection"],
        items=items,
        unit=_telling_unit(source, sums_row),
        left=task_id if _waits_for_a_newer_release(task, outcome, refused_outcome, loss) else None,
    )


def _record_table_event(
    connection: Connection, task: Mapping[str, Any], target: Target, sums_row: Mapping[str, Any]
) -> None:
    """Tell those who wait for the table: also when the task's own caller has withdrawn, the rows are there."""
    connection.execute(
        query("execution/insert_table_event"),
        {
            "table_name": target.table,
            "task_id": task["id"],
            "source": task["source"],
            "rows_landed": sums_row["rows_landed"],
            "replaces": target.disposition is Disposition.REPLACE,
        },
    )


def _insert_run_note(connection: Connection, task: Mapping[str, Any], outcome: Outcome, own: Outcome) -> None:
    """How the run's work ended, also when the task's own caller has withdrawn: for the others it was done."""
    reason = outcome.reason
    if own.status is not outcome.status:
        reason = f"{reason}; {own.reason}"[:MAX_REASON_CHARS]
    values = {"task_id": task["id"], "status": outcome.status, "reason": reason}
    connection.execute(query("execution/insert_run_note"), values)


def _waits_for_a_newer_release(
    task: Mapping[str, Any], outcome: Outcome, refused: Outcome | None, loss: Loss | None
) -> bool:
    """Whether settling, planning or a group could not read the declaration; such a group alone hands back to HELD."""
    if outcome.status is not TaskStatus.HELD:
        return False
    return refused is not None or bool((task["plan_error"] or {}).get("newer")) or loss is not None


def _handed_back(task: Mapping[str, Any]) -> Loss | None:
    """Nodes that drain have handed back all that is unfinished: nothing of it was lost."""
    nodes = task["handed_back_by"]
    if nodes is None:
        return None
    cause = f"{nodes} has handed back what was not done"
    return Loss(cause=cause, nodes=tuple(nodes.split(", ")), started=False)


def _outcome(
    connection: Connection,
    task: dict[str, Any],
    source: Source,
    sums: ShardSums,
    rules: LaneRules,
    *,
    planned: bool,
    loss: Loss | None,
) -> tuple[Outcome, Swap | None]:
    """Where the task goes, a replacement's rows swapped in; and what became of these, None where there are none.

    What cannot be settled as it should ends DEAD with the reason: raised, it would be raised again by every repair.
    """
    if sums.bad_rows and not sums.fitting_rows and sums.final:
        bad_row = connection.execute(
            query("execution/select_first_bad_row"), {"task_id": task["id"]}
        ).fetchone()
        sums = replace(sums, bad_reason=bad_row["reason"] if bad_row else None)
    outcome = settle_outcome(
        Attempt(
            planned=planned,
            retry_count=task["retry_count"],
            max_retries=task["max_retries"],
            lost_count=task["lost_count"],
            named_total=task["total_rows"],
            max_failed_shards=source.max_failed_shards,
            plan_error=task["plan_error"],
            host_held=task["host_held"],
            probe=task["probe"],
            total_at_least=_may_be_more(source, task["total_rows"], sums.source_total),
            thinned=getattr(source.paging, "advance_by", "rows") == "page_size",
            impatient_s=rules.host.patience_s if task["impatient"] else None,
            max_bad_share=source.max_bad_share,
            max_repeated_rows=source.max_repeated_rows,
        ),
        sums,
        rules.retry,
        base_s=source.retries.base_s,
        chance=random.random(),
        # A task that has started somewhere cannot have been taken by nobody.
        loss=replace(loss, nowhere=None) if loss and task["status"] == TaskStatus.RUNNING else loss,
    )
    try:
        with connection.transaction():
            return _land_replacement(connection, source.target, task["id"], outcome)
    except (errors.OperationalError, errors.InterfaceError):
        raise  # the database went away, or a lock was not to be had: the next to settle tries again
    except (AsideMissing, errors.DatabaseError) as error:
        log.error("task %s: its rows cannot replace the target's", task["id"], exc_info=error)
        reason = f"its rows cannot replace those of landing.{source.target.table}: {error}"
        return Outcome(status=TaskStatus.DEAD, reason=reason[:MAX_REASON_CHARS]), None


def _may_be_more(source: Source, *totals: int | None) -> bool:
    """Whether one of the totals that the source has named says only that there are so many at least."""
    return any(is_at_least(source.total, total) for total in totals if total is not None)


def _land_replacement(
    connection: Connection, target: Target, task_id: int, outcome: Outcome
) -> tuple[Outcome, Swap | None]:
    """Disposition replace: swapped in when all of it was fetched, in this transaction.

    A task that ends PARTIAL leaves the target as it is, whatever it lacks, unless its declaration wants what there is.
    One that ends DEAD keeps its rows aside: a redrive goes on from them.
    """
    if target.disposition is not Disposition.REPLACE or outcome.status not in _LANDED:
        return outcome, None
    if outcome.status is TaskStatus.PARTIAL and target.replace_when == "complete":
        drop_aside(connection, target.table, task_id)
        kept = f"landing.{target.table} keeps the rows it had (target.replace_when is complete)"
        return replace(outcome, reason=f"{outcome.reason}; {kept}"), Swap.KEPT
    swapped = swap(connection, target, task_id)
    if swapped is Swap.SUPERSEDED:
        newer = "a newer task has replaced the target; these rows were dropped"
        reason = newer if outcome.reason is None else f"{outcome.reason}; {newer}"
        return replace(outcome, reason=reason), swapped
    return outcome, swapped


def _move(
    connection: Connection,
    task: dict[str, Any],
    source: Source | None,
    sums_row: dict[str, Any],
    outcome: Outcome,
    rules: LaneRules,
    actor: str,
    *,
    run_over: bool,
    callers: Callers | None,
    refused: tuple[str, ...],
) -> dict[str, Any]:
    again = outcome.status in _AGAIN
    priority = _priority_after(task, source, outcome)
    connection.execute(query("execution/fence_task"), {"task_id": task["id"], "again": again})
    if sums_row["done"] + sums_row["failed"] < sums_row["shards"]:
        # Pages that landed while we waited for their shards count as well.
        sums_row = {**sums_row, **_one(connection, "execution/sum_shards", {"task_id": task["id"]})}
    moved = _one(
        connection,
        "execution/settle_task",
        {
            "task_id": task["id"],
            "attempt": task["attempt"],
            "status": outcome.status,
            "reason": outcome.reason,
            "actor": actor,
            "result": Jsonb(_result(task, sums_row, callers)),
            "error": _jsonb(task["plan_error"] or sums_row["first_error"]),
            "again": again,
            "retries": int(outcome.status is TaskStatus.RETRYING),
            "priority": priority,
            "lane": rules.lane_of(priority),
            "losses": int(outcome.status is TaskStatus.QUEUED and outcome.counted),
            "refused": list(refused),
            "delay_s": outcome.delay_s,
        },
    )
    if outcome.status is TaskStatus.DEAD:
        connection.execute(
            query("execution/insert_dead_letter"),
            {
                "task_id": task["id"],
                "generation": moved["generation"],
                "error_message": outcome.reason or "unknown",
                "retry_count": moved["retry_count"],
            },
        )
    if run_over and task["run_id"]:
        connection.execute(query("execution/close_groups"), {"run_id": task["run_id"]})
    return moved


def _priority_after(task: dict[str, Any], source: Source | None, outcome: Outcome) -> int:
    """A retry is more urgent than the attempt before it, as far as the formula says so; anything else keeps its own."""
    current: int = task["priority"]
    if outcome.status is not TaskStatus.RETRYING or source is None:
        return current
    formula = priority_rules().for_source(source.priority_formula)
    priority = priority_of(
        formula,
        task["base_priority"],
        emergency=task["emergency"],
        retry_count=task["retry_count"] + 1,
        waited_s=0,
        pinned=task["pinned"],
    )
    return max(current, priority)


def _result(task: dict[str, Any], sums: dict[str, Any], callers: Callers | None) -> dict[str, Any]:
    """The merged result: totals, successes, failures, bad rows, bytes, time by stage in seconds.

    `repeated_rows` were fetched twice; null: they were not counted.
    `rows_fetched` counts the rows of unchanged pages, which `unchanged_pages` and `unchanged_rows` tell apart. With
    disposition replace `swap` says whether the rows are the target's now. `restarts`: shards that began anew, since the
    place to go on from was gone.
    Of a survivor also `own_rows`, those that its own caller asked for, and `shares`, those of the others.
    """
    names = (
        "shards",
        "done",
        "failed",
        "pages",
        "rows_fetched",
        "rows_landed",
        "bad_rows",
        "bytes",
        "http_retries",
        "restarts",
        "unchanged_pages",
        "unchanged_rows",
    )
    merged = {name: sums[name] for name in names}
    merged["repeated_rows"] = sums["repeated"]
    merged["total_rows"] = task["total_rows"] if task["total_rows"] is not None else sums["source_total"]
    merged["seconds"] = {
        "elapsed": task["elapsed_s"],
        "fetch": round(sums["fetch_s"], 3),
        "land": round(sums["land_s"], 3),
    }
    if sums["swap"] is not None:
        merged["swap"] = sums["swap"]
    if callers is not None:
        merged["own_rows"] = callers.shares.get(task["id"])
        merged["shares"] = {str(caller): callers.shares.get(caller) for caller in callers.merged}
    return merged


def _sums(row: dict[str, Any]) -> ShardSums:
    return ShardSums(
        shards=row["shards"],
        done=row["done"],
        failed=row["failed"],
        permanent=row["permanent"],
        rows_fetched=row["rows_fetched"],
        source_total=row["source_total"],
        retry_after_s=row["retry_after_s"],
        first_failed=row["first_failed"],
        first_error=row["first_error"],
        mismatch=row["mismatch"],
        by_page=row["by_page"],
        streams=row["streams"],
        permanent_kinds=row["permanent_kinds"],
        host_down=row["host_down"],
        host_sick=row["host_sick"],
        deferred=row["deferred"],
        probed=row["probed"],
        outage=row["outage"],
        rows_landed=row["rows_landed"],
        unchanged_rows=row["unchanged_rows"],
        bad_rows=row["bad_rows"],
        repeated_rows=row["repeated"],
    )


def _jsonb(value: dict[str, Any] | None) -> Jsonb | None:
    return None if value is None else Jsonb(value)


def _one(connection: Connection, name: str, values: dict[str, Any]) -> dict[str, Any]:
    row = connection.execute(query(name), values).fetchone()
    if row is None:
        raise LookupError(f"{name} returned no row for {values}")
    return row
