"""What of the sweep is due: one look at everything it does, so that a run is started when there is something to do.

| pass | due when |
| --- | --- |
| outbox | a generation, or a dead letter, is unconfirmed for 5 s |
| letters | a dead letter has no fingerprint |
| retrying | a RETRYING task is a minute past due |
| messages | a waiting task is older than its lane's TTL, was overtaken, or is a minute old beside an empty queue |
| groups | a shard group has fallen silent, or its node does not start it |
| unstarted | a placed shard group has not started for a while: Airflow is asked whether it was handed out |
| unsettled | a task under way has made no progress for 30 s |
| orphans | an open shard group belongs to no task under way |
| held | a HELD task's host, endpoint and limit let it go |
| placeless, undispatched | a task waits for a node; the time to try one again has come |
| ageing | a task has waited long enough to become more urgent |
| redrives | a redrive has not ended |
| notes, tables | a run's note, a table's event is to be delivered |

What has no look is left to the sweep's own schedule: merging (admission does it; the pass joins what two admissions at
the same time left apart), tables aside, forgotten pages and endpoints, the topology, and the removal of ended runs.
Lanes, the inbox and the dead-letter queue have watchers of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from collect_ops.delivery import dispatch, outbox, repair, run_notes, table_events
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.priority import priority_rules
from collect_ops.lanes.rules import LaneRules
from collect_ops.nodes.rules import PlacementRules
from collect_ops.sources.stored import FORMAT
from collect_ops.storage import Connection, query

#: Passes that may find, run after run, that there is nothing to do for them yet: a run whose DAG is paused, a task that
#: has aged as far as it can. They are due as often as the sweep ran when it knew no looks.
PATIENT = frozenset({"unsettled", "placeless", "ageing", "redrives"})
PATIENT_S = 60.0
#: The others, which a run that does its work makes undue.
LONGEST_S = 30.0


#: Of a pass of which it is only known that it is due.
NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Told:
    """That a run was started for a pass.

    Args:
        at: When.
        pause_s: Seconds until the next one for the same reason.
        subjects: What made it due.
    """

    at: float
    pause_s: float
    subjects: frozenset[str]


@dataclass(slots=True, kw_only=True)
class Reminders:
    """When what stays due is worth another run: after twice as long each time. Pure: times come in.

    What is due for a new reason is worth one at once: a shard group that is lost does not wait for the reminder of one
    that nobody could mend.

    Args:
        first_s: Seconds until the first reminder.
    """

    first_s: float = 4.0
    _told: dict[str, _Told] = field(default_factory=dict)

    def worth_a_run(self, due: Mapping[str, frozenset[str]], now: float) -> list[str]:
        """What of the due passes a run is to be started for.

        Args:
            due: All passes that are due, with what makes them due as far as that is known.
            now: Of a clock that never goes back.
        """
        self._told = {name: told for name, told in self._told.items() if name in due}
        return [name for name, subjects in sorted(due.items()) if self._is_worth(name, subjects, now)]

    def told(self, due: Mapping[str, frozenset[str]], now: float) -> None:
        """A run was started for these."""
        for name, subjects in due.items():
            told = self._told.get(name)
            longest_s = PATIENT_S if name in PATIENT else LONGEST_S
            again = told is not None and subjects <= told.subjects
            pause_s = min(longest_s, told.pause_s * 2) if told is not None and again else self.first_s
            self._told[name] = _Told(now, pause_s, subjects)

    def _is_worth(self, name: str, subjects: frozenset[str], now: float) -> bool:
        told = self._told.get(name)
        return told is None or not subjects <= told.subjects or now - told.at >= told.pause_s


def look(
    connection: Connection, backends: Backends, rules: LaneRules, placement: PlacementRules
) -> Mapping[str, frozenset[str]]:
    """The passes that are due, with what makes them due as far as that is known.

    Two short statements; the broker is asked only beside tasks that wait for long.

    Args:
        connection: To the database.
        backends: Where the services are.
        rules: Lane rules.
        placement: After how long a shard group is lost.
    """
    row = connection.execute(query("delivery/select_due"), _times(rules)).fetchone()
    if row is None:
        raise LookupError("delivery/select_due gave no row")
    due: dict[str, frozenset[str]] = {name: NOBODY for name, is_due in row.items() if is_due is True}
    if _has_empty_queue(row, backends, rules):
        due["messages"] = NOBODY
    groups = dispatch.look(connection, backends, placement)
    if groups.lost:
        due["groups"] = groups.lost
    if groups.unstarted:
        due["unstarted"] = groups.unstarted
    return due


def _has_empty_queue(row: dict[str, Any], backends: Backends, rules: LaneRules) -> bool:
    """Whether a lane's queue is empty, unacked included, or gone, though a task has waited in it for a minute."""
    if not row["old_lanes"]:
        return False
    depths = repair.depths(backends)
    return depths is not None and not all(depths.get(rules.queue(lane)) for lane in row["old_lanes"])


def _times(rules: LaneRules) -> dict[str, Any]:
    return {
        "lanes": list(rules.lanes),
        "ttls_s": [float(lane.message_ttl_s) for lane in rules.lanes.values()],
        "strict": rules.strict_priorities,
        "grace_s": repair.GRACE_S,
        "quiet_s": repair.QUIET_S,
        "outbox_s": outbox.OVERDUE_S,
        "ageing_s": priority_rules().ageing.first_after_s,
        "note_s": run_notes.GRACE_S,
        "table_s": table_events.GRACE_S,
        "format": FORMAT,
    }
