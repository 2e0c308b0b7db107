"""Tasks that wait, for benchmarks of what happens to them; admitted as all tasks are."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.admission_process import submissions
from benchmarks.errors import PeerFailed
from collect_ops.admission.model import Admission, Submission
from collect_ops.admission.service import AdmissionService
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import LaneRules

BATCH = 1_000


def fill(backends: Backends, rules: LaneRules, count: int, *, priority: int, first: int = 0) -> list[int]:
    """Admit so many tasks, no two of them equal; returns their ids.

    Args:
        backends: where to.
        rules: lane rules.
        count: how many.
        priority: of each.
        first: number of the first; the number makes the parameters.

    Raises:
        PeerFailed: one of them was not admitted.
    """
    work = submissions(count, first, priority=priority)
    with AdmissionService(backends, rules, None) as service:
        return [
            task_id for at in range(0, count, BATCH) for task_id in _admitted(service, work[at : at + BATCH])
        ]


def _admitted(service: AdmissionService, batch: Sequence[Submission]) -> list[int]:
    found = []
    for answer in service.admit_batch(batch):
        if not isinstance(answer, Admission) or answer.duplicate_of is not None:
            raise PeerFailed(peer="collect-ops", reason=f"a task of the backlog was not admitted: {answer}")
        found.append(answer.task_id)
    return found
