from __future__ import annotations

from typing import Any

import pytest

from collect_ops.collectors.server_words import sentence_in, sentence_of
from tests.plugins.unit.cpu_deadline import ends_within


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"Note": "5 calls per minute"}, "5 calls per minute"),
        ({"code": 429, "message": "slow down"}, "slow down"),
        ({"error": {"code": "limit", "message": "slow down"}}, "slow down"),
        ({"errors": [{"detail": "no such field"}]}, "no such field"),
        ({"error": "invalid_grant", "error_description": "expired"}, "expired"),
        ({"error": "limit"}, "limit"),
        ({"Fault": {"faultstring": "quota"}}, "quota"),
        ({"status": "running"}, "running"),
        ("no", "no"),
        ({"rows": [{"message": "a row's own"}]}, None),
        ({"message": "  "}, None),
        ({"message": 5}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_sentence_of_a_body(document: Any, sentence: str | None) -> None:
    assert sentence_in(document) == sentence


def test_a_body_that_is_no_json_has_none() -> None:
    assert sentence_of(b"<html>") is None
    assert sentence_of(b'{"message": "cut o') is None
    assert sentence_of(b'{"message": "whole"}') == "whole"


def test_a_hostile_body_takes_no_time() -> None:
    deep: Any = {}
    for _ in range(100):
        deep = {"error": [deep] * 100, "errors": [deep] * 100}
    with ends_within(5):
        assert sentence_in(deep) is None
