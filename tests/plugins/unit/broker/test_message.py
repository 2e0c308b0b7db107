"""The message of a collect task."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.broker.message import MalformedMessage, TaskMessage

IDS = st.integers(min_value=1, max_value=2**63 - 1)


@given(task_id=IDS, generation=IDS)
def test_what_is_written_is_read(task_id: int, generation: int) -> None:
    message = TaskMessage(task_id=task_id, generation=generation)
    assert TaskMessage.decode(message.encode()) == message


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[]", "must be an object with schema 1"),
        (b'{"schema":2,"task_id":1,"generation":1}', "must be an object with schema 1"),
        (b'{"schema":1,"generation":1}', "task_id must be a positive integer, got None"),
        (b'{"schema":1,"task_id":true,"generation":1}', "task_id must be a positive integer, got True"),
        (b'{"schema":1,"task_id":1,"generation":0}', "generation must be a positive integer, got 0"),
        (
            b'{"schema":1,"task_id":1,"generation":9223372036854775808}',
            "generation must be a positive integer",
        ),
    ],
)
def test_what_is_malformed_is_named(body: bytes, told: str) -> None:
    with pytest.raises(MalformedMessage, match=told) as caught:
        TaskMessage.decode(body)
    assert caught.value.body == body


@given(st.binary(max_size=200))
def test_no_body_raises_anything_else(body: bytes) -> None:
    try:
        TaskMessage.decode(body)
    except MalformedMessage as error:
        assert error.body == body
