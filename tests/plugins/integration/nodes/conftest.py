"""What tests of nodes share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_other_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding up the memory of another stack's workers takes longer than a node may be silent here."""
    monkeypatch.setattr("collect_ops.nodes.machine.workers_bytes", lambda: 0)
