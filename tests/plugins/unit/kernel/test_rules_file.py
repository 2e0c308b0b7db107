"""What may be wrong with a file of rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.kernel.rules_file import Rules, load_rules


class Limits(Rules):
    percent: Annotated[int, Field(ge=1, le=100)] = 80


class Sheet(Rules):
    limits: Limits = Limits()
    name: str = "shipped"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("limits: {percent: 0}", r"limits.percent: must be greater than or equal to 1 \(got 0\)"),
        ("limits: {precent: 3}", "limits.precent: is not a field: known are percent; did you mean 'percent'"),
        ("limits: 3", r"limits: must be a mapping of fields \(got 3\)"),
        ("- name", "file: must be a mapping of fields"),
        ("limits: [", "line 1, column 10: is not YAML"),
        ("name: a\nname: b", "line 2, name: is given twice, in lines 1 and 2"),
    ],
)
def test_every_fault_names_its_field(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "sheet.yaml"
    path.write_text(text)
    with pytest.raises(ValidationFailed, match=told) as refused:
        load_rules(path, Sheet)
    assert refused.value.subject == "rules sheet.yaml"


def test_what_a_file_leaves_out_is_as_shipped(tmp_path: Path) -> None:
    path = tmp_path / "sheet.yaml"
    path.write_text("# nothing yet\n")
    assert load_rules(path, Sheet) == Sheet()
    path.write_text("limits: {percent: 7}\n")
    assert load_rules(path, Sheet) == Sheet(limits=Limits(percent=7))
