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
    """Whatever lies in these folders works on the running stack, or starts one."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in ("e2e", "stack"):
            item.add_marker(pytest.mark.stack)


def pytest_collection_finish() -> None:
    """What collecting has made (Airflow's modules above all) stays: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()
