"""A run's note: it fits, names what it can, repeats no markup of a server, and keeps what a person wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.execution.run_verdict import HEADING, NOTE_CHARS, BadEnd, RunVerdict
from collect_ops.tasks.lifecycle import TaskStatus

ends = st.lists(
    st.builds(
        BadEnd,
        task_id=st.integers(1, 2**40),
        attempt=st.integers(1, 99),
        source=st.from_regex(r"[a-z][a-z0-9_]{0,47}", fullmatch=True),
        status=st.sampled_from([TaskStatus.DEAD, TaskStatus.PARTIAL]),
        reason=st.text(max_size=1000),
        letter_id=st.none() | st.integers(1, 2**40),
    ),
    min_size=1,
    max_size=60,
)


def verdict(*found: BadEnd, tasks: int = 0) -> RunVerdict:
    return RunVerdict(run_id="r", dag_id="d", ends=found, tasks=tasks, pending=True)


@given(found=ends, existing=st.text(max_size=1500))
def test_a_note_fits_and_is_the_same_when_it_is_written_again(found: list[BadEnd], existing: str) -> None:
    said = verdict(*found, tasks=len(found))
    note = said.note(existing)
    assert len(note) <= NOTE_CHARS
    assert note.count(HEADING) >= 1
    assert said.note(note) == note


@given(found=ends)
def test_no_markup_of_a_reason_works(found: list[BadEnd]) -> None:
    note = verdict(*found).note()
    assert all(line.count("`") % 2 == 0 for line in note.splitlines())


@given(found=ends, existing=st.text(max_size=1500))
def test_the_first_task_is_named_with_what_to_do(found: list[BadEnd], existing: str) -> None:
    note = verdict(*found).note(existing)
    assert f"* task {found[0].task_id} of " in note
    assert "collect-ops " in note


@pytest.mark.parametrize(("statuses", "fails"), [(["DEAD", "PARTIAL"], True), (["PARTIAL"], False)])
def test_dead_fails_and_partial_does_not(statuses: list[str], fails: bool) -> None:
    found = [
        BadEnd(task_id=n, attempt=1, source="things", status=TaskStatus(status), reason="because")
        for n, status in enumerate(statuses, 1)
    ]
    said = verdict(*found, tasks=50)
    assert bool(said.dead) is fails
    assert said.note().splitlines()[0].endswith("of 50 tasks")


def test_a_persons_words_come_first_and_stay() -> None:
    end = BadEnd(task_id=1, attempt=1, source="things", status=TaskStatus.DEAD, reason="404", letter_id=7)
    note = verdict(end).note("Ada looks at it")
    assert note.startswith(f"Ada looks at it\n\n{HEADING} 1 DEAD of 1 task\n")
    assert "`collect-ops dead redrive 7`" in note
