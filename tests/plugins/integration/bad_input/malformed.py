"""Messages for the inbox that are no submissions, each wrong in a way of its own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

Made = tuple[bytes, dict[str, Any]]
GOOD: dict[str, Any] = {"schema": 1, "source": "things", "params": {"day": "x"}}

#: Values that fit no field: what each field is allowed is left out of what it gets.
ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    11,
    1.5,
    2**70,
    "",
    "yes",
    "0",
    [],
    [1],
    {},
    {"a": 1},
    "\ud800",
    "a\0b",
)
FITS: dict[str, tuple[Any, ...]] = {
    "schema": (),
    "source": (),
    "params": ({},),
    "path": (None, "yes", "0"),
    "priority": (None, 0),
    "force": (),  # without a request id not even true will do
    "deadline": (None,),
    "request_id": (None, "yes", "0"),
    "identity": ({}, {"a": 1}),
}


def nested(depth: int) -> bytes:
    return b'{"schema":1,"source":"things","identity":' + b'{"a":' * depth + b"1" + b"}" * (depth + 1)


def odd_field(chance: random.Random) -> bytes:
    name = chance.choice(list(FITS))
    value = chance.choice([odd for odd in ODD if not any(same(odd, fit) for fit in FITS[name])])
    return json.dumps({**GOOD, name: value}).encode()


def same(left: object, right: object) -> bool:
    return type(left) is type(right) and left == right


def broken_off(chance: random.Random) -> bytes:
    whole = json.dumps(GOOD).encode()
    return whole[: chance.randrange(len(whole))]


def changed_byte(chance: random.Random) -> bytes:
    """A structural byte of good JSON is another."""
    whole = bytearray(json.dumps(GOOD).encode())
    place = chance.choice([place for place, byte in enumerate(whole) if byte in b'{}:,"'])
    whole[place] = chance.choice(b"\x00\xff\x80;<'")
    return bytes(whole)


def unknown_field(chance: random.Random) -> bytes:
    name = "".join(chance.choices("abcdefgh_\0é\u2028", k=5))
    return json.dumps({**GOOD, f"x{name}": 1}, ensure_ascii=False).encode()


def bad_params(chance: random.Random) -> bytes:
    value = chance.choice([1, 1.5, True, [], ["x"], {}, {"a": {"b": 1}}, "a\0b", "\udfff", 10**400, 2**64])
    return json.dumps({**GOOD, "params": {"day": value}}).encode()


def raw(*bodies: bytes) -> Callable[[random.Random], bytes]:
    return lambda chance: chance.choice(bodies)


KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    lambda chance: chance.randbytes(chance.randrange(1, 200)),
    raw(b"", b" ", b"null", b"true", b"17", b'"things"', b"[]", b"[[]]", b"{}", b"\0", b"\xef\xbb\xbf"),
    broken_off,
    changed_byte,
    odd_field,
    unknown_field,
    bad_params,
    raw(*(json.dumps({**GOOD, "source": name}).encode() for name in ("nowhere", "thing", "../things", "*", "a\0"))),
    raw(*(json.dumps({**GOOD, "params": {name: "x"}}).encode() for name in ("dya", "", "day ", "\0", "a" * 5000))),
    raw(nested(65), nested(500), nested(1_500), nested(50_000), b"[" * 100_000, b'{"a":' * 90_000),
    raw(*(b'{"schema":1,"source":"things","params":{"day":%s}}' % x for x in (b"NaN", b"-Infinity", b"1e999"))),
    raw(b'{"schema":1,"schema":1,"source":"things"}', b'{"schema":1,"source":"things","params":{"day":"a","day":"b"}}'),
    raw(b'{"schema":1,"source":"things","priority":' + b"9" * 5_000 + b"}"),
    raw(*(json.dumps(GOOD).encode(encoding) for encoding in ("utf-16", "utf-16-le", "utf-32"))),
    raw(json.dumps({**GOOD, "params": {"day": "ü"}}, ensure_ascii=False).encode("latin-1")),
    raw(json.dumps({**GOOD, "path": "/../up"}).encode(), json.dumps({**GOOD, "path": "http://a/b"}).encode()),
    raw(json.dumps({**GOOD, "request_id": "x" * 501}).encode()),
    raw(*(json.dumps({**GOOD, "deadline": x}).encode() for x in ("tomorrow", "2026-01-31", "2026-01-31T08:00:00", 5))),
    raw(b"{'schema': 1}", b"schema=1&source=things", b"<submission/>", b"\x80\x04\x95.", b"\x1f\x8b\x08\0\0"),
)  # fmt: skip


def malformed(count: int, seed: int) -> list[Made]:
    """Bodies with properties; some of them want a reply that nobody can give, two are larger than is read."""
    chance = random.Random(seed)
    made: list[Made] = []
    for number in range(count):
        body = KINDS[number % len(KINDS)](chance)
        properties: dict[str, Any] = {"app_id": chance.choice(["crm", "", "a\0b", b"\xff\xfe", "ü"])}
        if chance.random() < 0.1:
            properties["reply_to"] = chance.choice(
                ["nowhere", "collect.inbox", "collect.lane.urgent", "\0", b"\xff"]
            )
        if chance.random() < 0.1:
            properties["headers"] = {"x-death": "none", "error-message": 7, "deep": {"a": [{"b": None}]}}
        made.append((body, properties))
    large = json.dumps({**GOOD, "path": "a" * (1024 * 1024)}).encode()
    made[:2] = [(large, {}), (b"\xff" * (2 * 1024 * 1024), {})]
    return made
