"""What is kept of a dead message: whatever it holds, and enough to send it again."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.broker.consumer import Delivery
from collect_ops.delivery.dead_message import (
    MAX_BODY_BYTES,
    MAX_SHOWN_CHARS,
    again,
    bare_message,
    dead_message,
    shown_body,
)
from collect_ops.lanes.rules import lane_rules

RULES = lane_rules()
AMQP = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=20)
    | st.binary(max_size=20) | st.datetimes() | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip
NAMES = st.sampled_from(
    ["error-message", "failed-time", "retry-count", "x-death", "original-routing-key", "mine"]
)


def delivery(body: bytes = b"{}", headers: dict[str, Any] | None = None, **fields: Any) -> Delivery:
    return Delivery(
        **{
            "tag": 1, "body": body, "headers": headers or {}, "priority": 0, "redelivered": False,
            "routing_key": "lane.normal", **fields,
        }
    )  # fmt: skip


def texts_in(value: object) -> Iterator[str]:
    """All texts within a JSON value, names of members included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield name
            yield from texts_in(member)
    elif isinstance(value, list):
        for member in value:
            yield from texts_in(member)


@given(
    st.binary(max_size=200),
    st.dictionaries(NAMES | st.text(max_size=10), AMQP, max_size=6),
    st.text(max_size=20),
)
def test_any_message_can_be_kept(body: bytes, headers: dict[str, Any], name: str) -> None:
    taken = delivery(body, headers, message_id=name, routing_key=name)
    for message in (dead_message(taken, RULES), bare_message(taken, "refused")):
        kept = [message.headers, message.properties, message.x_death]
        # Read back: a text may spell out the escape and hold no NUL.
        assert "\x00" not in "".join(texts_in(orjson.loads(orjson.dumps(kept))))
        assert "\x00" not in message.error_message + (message.message_id or "") + message.routing_key
        assert message.error_message
        assert len(message.key) == 32
        assert message.body == body


def test_equal_messages_have_equal_keys_and_others_have_not() -> None:
    key = dead_message(delivery(b"x", {"a": 1}), RULES).key
    assert key == dead_message(delivery(b"x", {"a": 1}, tag=9, redelivered=True), RULES).key
    others = [delivery(b"y", {"a": 1}), delivery(b"x", {"a": 2}), delivery(b"x", {"a": 1}, message_id="m")]
    assert key not in {dead_message(other, RULES).key for other in others}


def test_a_letter_of_a_task_is_named_twice_or_it_is_somebodys_message() -> None:
    ours = delivery(b'{"dead_letter_id": 7}', message_id="dead-7")
    assert dead_message(ours, RULES).letter_id == 7
    for forged in (
        delivery(b'{"dead_letter_id": 8}', message_id="dead-7"),
        delivery(b"\xff", message_id="dead-7"),
        delivery(b"[7]", message_id="dead-7"),
        delivery(b'{"dead_letter_id": true}', message_id="dead-1"),
        delivery(b'{"dead_letter_id": 7}', message_id="dead-" + "7" * 30),
    ):
        assert dead_message(forged, RULES).letter_id is None


def test_where_a_message_came_from() -> None:
    lane = dead_message(delivery(), RULES)
    assert (lane.exchange, lane.send_routing_key) == ("collect.tasks", "lane.normal")
    inbox = dead_message(delivery(routing_key="collect.inbox", headers={"original-routing-key": "k"}), RULES)
    assert (inbox.exchange, inbox.send_routing_key) == ("collect.inbox", "k")
    deaths = [
        {"queue": "b", "exchange": "dlx", "routing-keys": ["second"], "reason": "expired"},
        {"queue": "a", "exchange": "orders", "routing-keys": ["first"], "reason": "rejected"},
    ]
    foreign = dead_message(delivery(routing_key="whatever", headers={"x-death": deaths}), RULES)
    assert (foreign.exchange, foreign.send_routing_key, foreign.x_death) == ("orders", "first", deaths)
    assert foreign.error_message == "expired in queue b"
    unknown = dead_message(delivery(routing_key="whatever"), RULES)
    assert (unknown.exchange, unknown.send_routing_key) == (None, None)


def test_a_message_is_sent_as_its_sender_had_sent_it() -> None:
    headers = {
        "error-message": "no JSON", "producer": "shop", "original-message-id": "m1", "original-reply-to": "answers",
        "original-correlation-id": "c1", "x-death": [], "tenant": "acme", "nested": {"a": 1}, "collect-batch-index": 3,
    }  # fmt: skip
    message = dead_message(
        delivery(b"\xff", headers, message_id="inbox-1", routing_key="collect.inbox"), RULES
    )
    sent = again(
        {
            "headers": message.headers, "properties": message.properties, "message_id": message.message_id,
            "send_exchange": message.exchange, "send_routing_key": message.send_routing_key, "body": message.body,
        }
    )  # fmt: skip
    assert (sent.exchange, sent.body, sent.headers) == ("collect.inbox", b"\xff", {"tenant": "acme"})
    assert (sent.message_id, sent.reply_to, sent.correlation_id, sent.app_id) == (
        "m1",
        "answers",
        "c1",
        "shop",
    )


def test_large_bodies_are_cut_and_say_so() -> None:
    message = dead_message(delivery(b"x" * (MAX_BODY_BYTES + 5)), RULES)
    assert (len(message.body), message.body_bytes) == (MAX_BODY_BYTES, MAX_BODY_BYTES + 5)


def test_bodies_are_shown_masked_cut_or_as_digits() -> None:
    assert shown_body(None) is None
    assert shown_body(b'{"password": "hush", "a": 1}') == {"json": {"password": "***", "a": 1}, "cut": False}
    assert shown_body(b"token=hush then") == {"text": "token=*** then", "cut": False}
    assert shown_body(b"\xff\x00\x01") == {"hex": "ff 00 01", "cut": False}
    # Latin-1 is a text, too; of what is none, not even the digits of a secret are shown.
    assert shown_body('{"password": "gehéim", "a": 1}'.encode("latin-1")) == {
        "json": {"password": "***", "a": 1},
        "cut": False,
    }
    assert shown_body("é token=hush then".encode("latin-1")) == {"text": "é token=*** then", "cut": False}
    binary = shown_body(b"\xff\x00 password=gehe\xefim \x01")
    assert binary == {"hex": b"\xff\x00 password=*** \x01".hex(" "), "cut": False}
    assert shown_body(b"\xff" + b"\x00" * 511 + b"a") == {"hex": " ".join(["ff"] + ["00"] * 511), "cut": True}
    long = shown_body(b"a" * 5000)
    assert long is not None
    assert (len(long["text"]), long["cut"]) == (4000, True)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize(
    "secret", ["hunter2-and-more", "gehéim-" * 3, "x" * 9000, ["hunter2-and-more"], 4711471147]
)
def test_a_secret_at_the_end_of_what_is_shown_is_masked(secret: object, encoding: str) -> None:
    for before in range(3_960, 4_020):
        body = json.dumps(
            {"a": "b" * before, "password": secret, "end": "c" * 60}, ensure_ascii=False
        ).encode(encoding)
        assert len(body) > MAX_SHOWN_CHARS
        shown = shown_body(body)
        assert shown is not None
        assert shown["cut"]
        assert len(shown["text"]) <= MAX_SHOWN_CHARS
        assert not any(part in shown["text"] for part in ("hun", "geh", "xx", "47"))


def test_times_and_counts_that_are_none() -> None:
    at = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    assert dead_message(delivery(headers={"failed-time": at}), RULES).failed_at == at.timestamp()
    for odd in (-1, 1e20, float("nan"), True, "soon", decimal.Decimal("NaN")):
        assert (
            dead_message(delivery(headers={"failed-time": odd, "retry-count": odd}), RULES).failed_at is None
        )
    assert dead_message(delivery(headers={"retry-count": 2**40}), RULES).retry_count == 0
