"""What a collect run's end says in Airflow: failed when a task of it is DEAD, with a note that tells what to do.

Airflow sees tasks that ran; only settling knows what became of what they collected. Notes are rows, written in the
transaction that settles (`insert_run_note`), so that neither a crash nor an Airflow that is away loses one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from collect_ops.kernel.backends import Backends
from collect_ops.orchestrator.errors import AirflowUnavailable
from collect_ops.orchestrator.port import RunReports
from collect_ops.storage import Connection, connect, query
from collect_ops.tasks.lifecycle import TaskStatus

log = logging.getLogger(__name__)

#: Airflow takes no longer note.
NOTE_CHARS = 1000
#: Of a reason, when several tasks share the note, and when one has it to itself.
REASON_CHARS, LONE_REASON_CHARS = 160, 600
#: Of a reason, however long a person's words are; and what stands around it.
LEAST_REASON_CHARS, FRAME_CHARS = 40, 320
#: What our part of a note begins with; what stands before it is a person's.
HEADING = "collect-ops:"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadEnd:
    """An attempt that ended DEAD or PARTIAL.

    Args:
        letter_id: The task's dead letter; None for PARTIAL.
    """

    task_id: int
    attempt: int
    source: str
    status: TaskStatus
    reason: str
    letter_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunVerdict:
    """How a run really ended.

    Args:
        dag_id: Its DAG; empty when there is nothing to show.
        run_id: The run.
        ends: The attempts that ended badly, the dead ones first.
        tasks: Tasks of the run.
        pending: Whether Airflow does not show all of them yet.
    """

    run_id: str
    dag_id: str = ""
    ends: Sequence[BadEnd] = ()
    tasks: int = 0
    pending: bool = False

    @property
    def dead(self) -> Sequence[BadEnd]:
        """The attempts that ended DEAD: the run has failed when there is one."""
        return [end for end in self.ends if end.status is TaskStatus.DEAD]

    def sentence(self) -> str:
        """What the run's last task fails with."""
        first = self.dead[0]
        others = f", and {len(self.dead) - 1} more" if len(self.dead) > 1 else ""
        return f"task {first.task_id} of source {first.source} is DEAD: {first.reason}{others}"

    def note(self, existing: str = "") -> str:
        """The run's note: how many ended how, then a line each with what to do, as far as there is room.

        Args:
            existing: The note that stands there. A person's words are kept, ours replaced.
        """
        kept = "" if existing.startswith(HEADING) else existing.partition(f"\n\n{HEADING}")[0].strip()
        kept = kept[: NOTE_CHARS // 2]
        room = NOTE_CHARS - len(kept) - (2 if kept else 0)
        ours = self._lines(room)
        return f"{kept}\n\n{ours}" if kept else ours

    def _lines(self, room: int) -> str:
        lines = [self._heading()]
        most = LONE_REASON_CHARS if len(self.ends) == 1 else REASON_CHARS
        most = max(LEAST_REASON_CHARS, min(most, room - FRAME_CHARS))
        for place, end in enumerate(self.ends):
            line = _line(end, most)
            left = len(self.ends) - place
            rest = f"* and {left} more: `collect-ops dead list`"
            if sum(map(len, lines)) + 2 * len(lines) + len(line) + len(rest) > room:
                lines.append(rest)
                break
            lines.append(line)
        return "\n".join(lines)[:room]

    def _heading(self) -> str:
        counts = []
        for status in (TaskStatus.DEAD, TaskStatus.PARTIAL):
            number = sum(end.status is status for end in self.ends)
            if number:
                counts.append(f"{number} {status}")
        total = max(self.tasks, len(self.ends))
        return f"{HEADING} {', '.join(counts)} of {total} task{'s' if total > 1 else ''}"


def _line(end: BadEnd, most: int) -> str:
    """One attempt, with what to do. The reason may quote a server: as code, so that no markup of it works."""
    reason = " ".join(end.reason.replace("`", "'").split())
    reason = reason if len(reason) <= most else f"{reason[: most - 1]}…"
    if end.status is TaskStatus.DEAD and end.letter_id is not None:
        act = f"look: `collect-ops dead show {end.letter_id}`, again: `collect-ops dead redrive {end.letter_id}`"
    else:
        act = f"look: `collect-ops status {end.task_id}`"
    return f"* task {end.task_id} of `{end.source}` {end.status}: `{reason}`; {act}"


def read_verdict(connection: Connection, run_id: str) -> RunVerdict:
    """How a run really ended, as far as its tasks are settled."""
    rows = connection.execute(query("execution/select_run_notes"), {"run_id": run_id}).fetchall()
    if not rows:
        return RunVerdict(run_id=run_id)
    ends = [
        BadEnd(
            task_id=row["task_id"],
            attempt=row["attempt"],
            source=row["source"],
            status=TaskStatus(row["status"]),
            reason=row["reason"] or "no reason given",
            letter_id=row["letter_id"] if row["status"] == TaskStatus.DEAD else None,
        )
        for row in rows
    ]
    return RunVerdict(
        run_id=run_id,
        dag_id=rows[0]["dag_id"],
        ends=ends,
        tasks=rows[0]["tasks"],
        pending=not all(row["delivered"] for row in rows),
    )


def confirm(connection: Connection, verdict: RunVerdict) -> None:
    """Airflow shows a verdict; what was settled since it was read stays to be shown."""
    values = {
        "task_ids": [end.task_id for end in verdict.ends],
        "attempts": [end.attempt for end in verdict.ends],
    }
    connection.execute(query("execution/confirm_run_notes"), values)


def deliver_verdict(run_id: str, backends: Backends, open_reports: Callable[[], RunReports]) -> RunVerdict:
    """What a run's last task says of it: writes the note, and returns the verdict for the task to end by.

    Args:
        run_id: The run, which has not ended: its state is left to Airflow.
        backends: Where the services are.
        open_reports: Opens the way to Airflow, with a time limit; called when there is something to say. A note that
            Airflow does not take is left to the sweep.
    """
    with connect(backends.postgres_dsn, application_name="collect-ops verdict") as connection:
        verdict = read_verdict(connection, run_id)
        if not verdict.pending:
            return verdict
        try:
            reports = open_reports()
            existing = reports.look(verdict.dag_id, run_id).note
            reports.write_note(verdict.dag_id, run_id, verdict.note(existing))
        except AirflowUnavailable as error:
            log.warning("the note of run %s is left to the sweep: %s", run_id, error)
        else:
            confirm(connection, verdict)
    return verdict
