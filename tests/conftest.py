"""Settings of all tests."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from hypothesis import settings

# A slow machine is no fault of the code: what takes long is a benchmark's matter.
settings.register_profile("collect-ops", deadline=None)
settings.load_profile("collect-ops")

# Tests collect from the example sources, which are off otherwise.
os.environ.setdefault("COLLECT_EXAMPLES", "1")

TESTS = Path(__file__).resolve().parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies in these folders works on the running stack, or starts one.

    What shares the running stack is one group for `--dist loadgroup`, and runs one after the other. Of those that start
    stacks of their own, or none, each file is a group: what it starts for all its tests is started once.
    """
    for item in items:
        shares = item.get_closest_marker("stack") is not None
        if item.path.relative_to(TESTS).parts[0] in ("e2e", "stack"):
            item.add_marker(pytest.mark.stack)
        if item.get_closest_marker("stack"):
            item.add_marker(pytest.mark.xdist_group("the running stack" if shares else item.path.stem))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What collecting has made (Airflow's modules above all) stays: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()
    # xdist writes a test's group behind its id; with a pytest that keeps ids elsewhere it runs them side by side.
    if session.config.getoption("loadgroup", default=False):
        lost = [item.nodeid for item in session.items if _group_of(item) and "@" not in item.nodeid]
        if lost:
            raise pytest.UsageError(
                f"pytest-xdist does not see the group of {lost[0]} and {len(lost) - 1} more tests"
            )


def _group_of(item: pytest.Item) -> pytest.Mark | None:
    return item.get_closest_marker("xdist_group")
