"""A submission that PostgreSQL cannot store is refused by itself; those beside it in the batch are admitted."""

from __future__ import annotations

from typing import Any

import pytest

from collect_ops.admission.model import Admission
from collect_ops.kernel.errors import ValidationFailed
from tests.plugins.integration.world import World, source


@pytest.mark.parametrize(
    "fields",
    [
        {"request_id": "a\x00b"},
        {"submitted_by": "a\x00b"},
        {"path": "/a\x00b"},
        {"params": {"day": "a\x00b"}},
        {"identity": {"interval": "a\ud800b"}},
        {"identity": {"interval": 2**70}},
    ],
    ids=lambda fields: "-".join(f"{name}" for name in fields),
)
def test_one_that_cannot_be_stored(world: World, fields: dict[str, Any]) -> None:
    world.add(source())
    good = world.submission(params={"day": "good"})
    answers = world.service().admit_batch([world.submission(**fields), good])
    assert isinstance(answers[0], ValidationFailed)
    assert next(iter(fields)) in str(answers[0])
    assert isinstance(answers[1], Admission)
