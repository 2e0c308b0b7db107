"""The table of legal moves, as properties."""

from __future__ import annotations

import pytest

from collect_ops.tasks.lifecycle import FINAL, FREES_KEY, MOVES, UNDER_WAY, TaskStatus, may_move


def test_every_state_is_in_the_table() -> None:
    assert set(MOVES) == set(TaskStatus)


@pytest.mark.parametrize("status", list(TaskStatus))
def test_what_has_ended_stays_and_what_has_not_can_end(status: TaskStatus) -> None:
    assert status.final == (status in FINAL)
    assert status.under_way == (status in UNDER_WAY)
    assert not may_move(status, status)
    if status.final:
        redriven = frozenset({TaskStatus.QUEUED, TaskStatus.MERGED})
        assert MOVES[status] == (redriven if status is TaskStatus.DEAD else frozenset())
        return
    reached, frontier = {status}, [status]
    while frontier:
        for following in MOVES[frontier.pop()] - reached:
            reached.add(following)
            frontier.append(following)
    assert TaskStatus.COMPLETED in reached
    assert may_move(status, TaskStatus.CANCELLED), "people can stop whatever has not ended"


def test_every_state_but_the_first_can_be_reached() -> None:
    reached = set().union(*MOVES.values())
    assert set(TaskStatus) - reached == {TaskStatus.CREATED}


def test_the_sets_do_not_contradict() -> None:
    assert not FINAL & UNDER_WAY
    assert FREES_KEY < FINAL
