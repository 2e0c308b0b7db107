from __future__ import annotations

from pathlib import Path

import pytest

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.load import load_source

GOOD = "name: things\nconnection: api\ntarget: {table: things}\nretry_when: [%s]\n"


def load(directory: Path, condition: str) -> None:
    path = directory / "things.yaml"
    path.write_text(GOOD % condition)
    load_source(path)


@pytest.mark.parametrize(
    ("condition", "field"),
    [
        ("{}", "retry_when.0"),
        ("{status: [200]}", "retry_when.0"),
        ("{status: [302]}", "retry_when.0.status"),
        ("{status: [304], body: a}", "retry_when.0.status"),
        ("{status: [99]}", "retry_when.0.status.0"),
        ("{body: 'a[['}", "retry_when.0.body"),
        ("{body: '[@,@][] | [@,@][] | [@,@][] | [@,@][] | [@,@][] | [@,@][] | [@,@][] | [@,@][] | [@,@][] | [@,@][] | [@,@][]'}", "retry_when.0.body"),  # noqa: E501
    ],
)  # fmt: skip
def test_a_condition_that_cannot_be_meant_is_refused(tmp_path: Path, condition: str, field: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        load(tmp_path, condition)
    assert [fault.field for fault in caught.value.faults] == [field]


@pytest.mark.parametrize(
    "condition", ["{status: [202]}", "{body: Note}", "{status: [200], headers: {X-State: pending}}"]
)
def test_a_condition_that_can_be_meant_is_taken(tmp_path: Path, condition: str) -> None:
    load(tmp_path, condition)
