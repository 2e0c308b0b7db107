"""What a claim lets through while something is held: probes one by one, and nobody before those that come first."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from collect_ops.lanes.breaker import Breaker, Phase
from collect_ops.lanes.circuits import Circuits, EndpointCircuit
from collect_ops.lanes.hosts import Host
from collect_ops.lanes.policy import Candidate, FirstHeld, Sorted

NOW = 1000.0


def candidate(task_id: int, source: str = "a", *, priority: int = 5, connection: str = "c") -> Candidate:
    return Candidate(
        task_id=task_id,
        generation=1,
        attempt=0,
        source=source,
        priority=priority,
        retry_count=0,
        small=False,
        due_in_s=None,
        max_active_tasks=None,
        connection=connection,
    )


def breaker(state: str) -> Breaker:
    """One that is closed, open, or due to be tried."""
    if state == "closed":
        return Breaker()
    return Breaker(phase=Phase.OPEN, holds=1, since=0.0, until=NOW + (60 if state == "open" else -1))


STATES = st.sampled_from(["closed", "open", "due"])


@given(
    host=STATES,
    endpoints=st.fixed_dictionaries(dict.fromkeys("abc", STATES)),
    sources=st.lists(st.sampled_from("abcd"), max_size=20),
)
def test_one_task_alone_tries_a_host_and_one_an_endpoint(
    host: str, endpoints: dict[str, str], sources: list[str]
) -> None:
    circuits = Circuits(
        host=breaker(host),
        endpoints={name: EndpointCircuit(breaker=breaker(state)) for name, state in endpoints.items()},
    )
    sorting = Sorted(room=100, active={}, hosts={"c": Host(connection="c", circuits=circuits, now=NOW)})
    block = [candidate(number, source) for number, source in enumerate(sources)]
    sorting.sort(block, {})
    claimed = [each for run in sorting.runs for each in run]
    states = {**endpoints, "d": "closed"}
    for each in claimed:
        assert "open" not in (host, states[each.source])
    if host == "due":
        assert len(claimed) <= 1
        assert len(claimed) == any(states[source] != "open" for source in sources)
    elif host == "closed":
        for name, state in states.items():
            ours = [each for each in claimed if each.source == name]
            assert (
                len(ours)
                == {"closed": sources.count(name), "open": 0, "due": min(1, sources.count(name))}[state]
            )
    assert sorting.probed == {
        each.endpoint for each in claimed if host == "due" or states[each.source] == "due"
    }
    assert len(claimed) + len(sorting.hold) == len(block)


def first_of(held: Iterable[Candidate]) -> dict[tuple[str, str], FirstHeld]:
    """As the statement gives it: the first by priority and age."""
    ordered = sorted(held, key=lambda each: (-each.priority, each.task_id))
    return {
        each.endpoint: FirstHeld(task_id=each.task_id, priority=each.priority) for each in reversed(ordered)
    }


@given(
    queued=st.lists(st.integers(4, 7), max_size=30),
    held=st.lists(st.integers(4, 7), max_size=30),
    mixed=st.randoms(use_true_random=False),
    room=st.integers(1, 4),
    at_once=st.integers(1, 5),
)
def test_whatever_is_held_goes_on_in_order_and_nothing_waits_for_ever(
    queued: list[int], held: list[int], mixed: object, room: int, at_once: int
) -> None:
    """Claims and releases by turns, with a queue that delivers by priority and by when it was published."""
    priorities = queued + held
    ids = list(range(len(priorities)))
    mixed.shuffle(ids)  # type: ignore[attr-defined]
    tasks = [candidate(task_id, priority=priority) for task_id, priority in zip(ids, priorities, strict=True)]
    queue, waiting = tasks[: len(queued)], tasks[len(queued) :]
    claimed: list[Candidate] = []
    for _ in range(10 * len(tasks) + 2):
        queue.sort(key=lambda each: -each.priority)  # stable: of equal ones the first published
        sorting = Sorted(room=room, active={}, first_held=first_of(waiting))
        taken, queue = queue[: room + 3], queue[room + 3 :]
        sorting.sort(taken, {})
        for each in (one for run in sorting.runs for one in run):
            assert not any((-one.priority, one.task_id) < (-each.priority, each.task_id) for one in waiting)
            claimed.append(each)
        waiting += [each for each, _ in sorting.hold]
        assert [each for each, _ in sorting.hold] == sorting.behind_held
        queue = [*sorting.leave, *queue]
        waiting.sort(key=lambda each: (-each.priority, each.task_id))
        queue += waiting[:at_once]  # by the claim itself, or by the sweep
        waiting = waiting[at_once:]
        if not queue and not waiting:
            break
    assert sorted(each.task_id for each in claimed) == sorted(ids)


def test_held_ones_of_another_connection_or_of_lower_priority_hold_up_nobody() -> None:
    sorting = Sorted(room=10, active={}, first_held=first_of([candidate(1, priority=5)]))
    elsewhere = candidate(2, priority=5, connection="new")
    urgent, equal, older = candidate(3, priority=6), candidate(4, priority=5), candidate(0, priority=5)
    sorting.sort([urgent, elsewhere, equal, older, candidate(5, "b", priority=1)], {})
    assert [each.task_id for each, _ in sorting.hold] == [4]
    assert "task 1 of source a" in sorting.hold[0][1]
