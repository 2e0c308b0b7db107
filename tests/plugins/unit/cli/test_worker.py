"""Which node `collect-ops worker` is."""

from __future__ import annotations

import pytest

from collect_ops.cli.worker import _id_of
from collect_ops.kernel.errors import ValidationFailed


def test_a_join_file_names_the_node() -> None:
    assert _id_of(None, {"COLLECT_NODE_ID": "n2"}) == "n2"
    assert _id_of("n2", {"COLLECT_NODE_ID": "n2"}) == "n2"
    assert _id_of("n3", {}) == "n3"
    assert _id_of(None, {}) is None


def test_it_is_no_other_nodes() -> None:
    with pytest.raises(ValidationFailed) as caught:
        _id_of("n3", {"COLLECT_NODE_ID": "n2"})
    (fault,) = caught.value.faults
    assert (fault.field, fault.value) == ("--node-id", "n3")
