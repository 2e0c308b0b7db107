"""What a claim gives back although it took later ones."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from collect_ops.lanes.policy import LONG_AGO, Candidate, passed_over


def candidate(task_id: int, priority: int, minute: int) -> Candidate:
    at = LONG_AGO + timedelta(minutes=minute)
    return Candidate(
        task_id=task_id,
        generation=1,
        attempt=0,
        source="a",
        priority=priority,
        retry_count=0,
        small=False,
        due_in_s=None,
        max_active_tasks=None,
        queued_at=at,
        in_queue_at=at,
    )


TASKS = st.lists(st.builds(candidate, st.integers(0, 99), st.integers(0, 10), st.integers(0, 20)), max_size=8)


@given(claimed=TASKS, returned=TASKS)
def test_passed_over_is_what_a_queue_would_have_delivered_before(
    claimed: list[Candidate], returned: list[Candidate]
) -> None:
    assert passed_over(claimed, returned) == [
        one
        for one in returned
        if any(other.priority <= one.priority and other.queued_at > one.in_queue_at for other in claimed)
    ]
