"""Whatever a server does, a task is COMPLETED with exactly its rows, or ends otherwise and says why."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from collect_ops.tasks.lifecycle import TaskStatus
from tests.examples import examples
from tests.plugins.unit.collectors.model_server import BY_TOKEN, COUNTED, Model, Task, collect

#: What a reason may name.
REASONS = (
    "paging.",
    "its Link header",
    "were fetched",
    "rows came where",
    "end: [{status:",
    "goes round in circles",
    "nothing is there",
)


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Servers with no quirk, one, or several."""
    style = draw(st.sampled_from([*COUNTED, *BY_TOKEN]))
    size = draw(st.integers(1, 8))
    rows = draw(st.integers(0, 40))
    quirks: dict[str, Any] = {
        "cap": st.integers(1, size),
        "hidden": st.frozensets(st.integers(0, max(0, rows - 1)), max_size=rows),
        "total": st.sampled_from(["none", "moving", "capped", "odd"]),
        "ignores": st.just(True),
        "behind": st.sampled_from(["404", "last"]),
        "turns": st.integers(1, 5),
        # Who names the next page knows whether there is one.
        "more": st.sampled_from(["true", "full"] if style in COUNTED else ["true"]),
    }
    if style == "offset":
        quirks |= {"first_offset": st.just(1), "in_pages": st.just(True)}
    if style in BY_TOKEN:
        quirks["itself"] = st.just(True)
    chosen = draw(st.lists(st.sampled_from(sorted(quirks)), unique=True, max_size=3))
    model = Model(
        style=style,
        rows=rows,
        size=size,
        shard=size * draw(st.integers(1, 5)),
        declared=draw(st.booleans()),
        **{name: draw(quirks[name]) for name in chosen},
    )
    assume(not shows_nothing(model))
    return model


def shows_nothing(model: Model) -> bool:
    """Whether no page of a server shows what is the matter with it.

    A total that stops counting where a full page ends has to be declared. A page from which everything is left out is
    the last one to anybody who does not know how many there are; so is a page that repeats the one before, to who
    declares that it is. And where rows change places, those that came twice may be among those that are left out.
    """
    if model.turns and model.hidden:
        return True
    if model.style not in COUNTED:
        return False
    page = min(model.size, model.cap or model.size)
    if model.total == "capped" and not model.declared and model.more == "none" and 7 % page == 0:
        return True
    pages = range(max(0, model.rows - page + 1))
    if model.ignores and model.behind == "last" and model.declared and model.total != "exact":
        return True
    if model.ignores and model.hidden.issuperset(range(min(page, model.rows))):
        return True
    return model.total != "exact" and any(
        model.hidden.issuperset(range(start, start + page)) for start in pages
    )


def is_exact(model: Model, task: Task) -> bool:
    return sorted(task.landed) == model.ids


def check(model: Model) -> str:
    """`exact` or `named`; anything else is an error."""
    task = collect(model)
    if task.outcome.status is TaskStatus.COMPLETED:
        assert is_exact(model, task), (model, task)
        return "exact"
    assert any(words in task.words for words in REASONS), (model, task)
    return "named"


def test_the_rows_are_the_servers_or_the_reason_names_why_not() -> None:
    counts: Counter[str] = Counter()

    @settings(
        max_examples=examples(400), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(models())
    def run(model: Model) -> None:
        counts[check(model)] += 1

    run()
    share = counts["exact"] / counts.total()
    print(f"\nexact: {counts['exact']} of {counts.total()} generated servers, {share:.0%}")
    assert share >= 0.6


EXACT: dict[str, dict[str, Any]] = {
    "no quirk": {},
    "a cap": {"cap": 3},
    "total unknown": {"total": "none"},
    "total odd": {"total": "odd"},
    "total capped": {"total": "capped"},
    "total moves": {"total": "moving"},
    "404 behind the end": {"behind": "404", "total": "none"},
    "the last page for ever": {"behind": "last", "total": "none"},
    "the last page names itself": {"itself": True},
    "thinned": {"hidden": frozenset({0, 5, 6, 7, 8, 9, 21})},
    "thinned, total unknown": {"hidden": frozenset({0, 6, 21}), "total": "none"},
    "offsets from 1": {"first_offset": 1},
    "offsets in pages": {"in_pages": True},
    "cap and total unknown": {"cap": 3, "total": "none"},
    "pages say more": {"more": "true"},
    "pages say more, total unknown": {"more": "true", "total": "none"},
    "no rows": {"rows": 0},
    "one row": {"rows": 1},
}


@pytest.mark.parametrize("rows", [20, 23])
@pytest.mark.parametrize("style", COUNTED)
@pytest.mark.parametrize("total", ["none", "exact"])
def test_a_full_page_that_says_more_costs_no_row(style: str, total: str, rows: int) -> None:
    task = collect(Model(style=style, rows=rows, size=5, shard=10, total=total, more="full"))
    assert (task.outcome.status, sorted(task.landed)) == (TaskStatus.COMPLETED, list(range(rows)))


@pytest.mark.parametrize("style", [*COUNTED, *BY_TOKEN])
@pytest.mark.parametrize("quirk", EXACT)
def test_what_is_declared_is_exact(quirk: str, style: str) -> None:
    model = Model(**{"style": style, "rows": 23, "size": 5, "shard": 10, **EXACT[quirk]})
    task = collect(model)
    assert (task.outcome.status, sorted(task.landed)) == (TaskStatus.COMPLETED, model.ids), task.words
