"""Values, bad rows and rows fetched twice, on the way that tasks really go: what lands, and how the task ends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from collect_ops.execution import settle as settling
from collect_ops.sources.file_defaults import with_file_defaults
from tests.plugins.integration.world import World, source
from tests.servers.bodies import Bodies

ONE_PAGE: dict[str, Any] = {
    "paging": {"type": "none"},
    "total": {"type": "unknown"},
    "page_size": None,
    "records": "@",
}
PAGES: dict[str, Any] = {**ONE_PAGE, "paging": {"type": "page"}, "page_size": 20, "batch_size": 1000}


def columns(**types: Any) -> dict[str, Any]:
    return {name: each if isinstance(each, dict) else {"type": each} for name, each in types.items()}


def ids(start: int, stop: int, step: int = 1) -> list[dict[str, Any]]:
    return [{"id": number, "v": f"r{number}"} for number in range(start, stop, step)]


def body(records: Any) -> bytes:
    return json.dumps(records).encode()


class Case:
    """A source of its own, its bodies, and how its task is to end.

    Args:
        pages: The bodies.
        types: The target's columns.
        status: Of the task.
        reason: A part of its reason; none: it has none.
        target: More of the target.
        fields: More of the source.
    """

    def __init__(
        self,
        *pages: bytes,
        types: Mapping[str, Any],
        status: str,
        reason: str | None = None,
        target: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        self.pages = pages
        self.types = types
        self.status = status
        self.reason = reason
        self.target = target or {}
        self.fields = fields


INTEGERS = {"id": "bigint", "v": "text"}
MERGE = {"disposition": "merge", "key": ["id"]}
#: 40 rows of which 20 are there: the order has changed between two pages.
TWICE = (body(ids(0, 20)), body(ids(0, 20)[::-1]), b"[]")
TIMES = {"day": "date", "at": "timestamptz", "local": "timestamp"}
#: So many texts that are too short to be stored elsewhere do not fit a page of PostgreSQL's.
WIDE = tuple(f"c{number}" for number in range(1200))
BAD = [{"id": "x", "v": f"r{number}"} for number in range(10)]

CASES: dict[str, Case] = {
    "integers": Case(b'[{"id": 1.0}, {"id": 2e0}, {"id": "3.0"}]', types=INTEGERS, status="COMPLETED"),
    "lists": Case(body([[0, "r0"], [1, "r1"]]), types=INTEGERS, status="DEAD", reason="records"),
    "all_bad": Case(body(BAD[:3]), types=INTEGERS, status="DEAD", reason='id: "x" does not fit bigint'),
    "few_bad": Case(body([*ids(0, 5), *BAD[:9]]), types=INTEGERS, status="COMPLETED"),
    "many_bad": Case(
        body([*ids(0, 89), *BAD]), types=INTEGERS, status="PARTIAL", reason="10 of 99 rows are bad"
    ),
    "a_tenth_bad": Case(body([*ids(0, 90), *BAD]), types=INTEGERS, status="COMPLETED"),
    "bad_allowed": Case(body([*ids(0, 5), *BAD]), types=INTEGERS, status="COMPLETED", max_bad_share=1.0),
    "all_bad_allowed": Case(
        body(BAD), types=INTEGERS, status="DEAD", reason="none of 10 rows", max_bad_share=1.0
    ),
    "empty": Case(b"[]", types=INTEGERS, status="COMPLETED"),
    "twice_merged": Case(
        *TWICE, types=INTEGERS, status="PARTIAL", reason="20 rows were fetched twice", target=MERGE, **PAGES
    ),
    "twice_appended": Case(
        *TWICE, types=INTEGERS, status="PARTIAL", reason="20 rows were fetched twice", **PAGES
    ),
    "twice_replaced": Case(
        *TWICE,
        types=INTEGERS,
        status="PARTIAL",
        reason="20 rows were fetched twice",
        target={"disposition": "replace", "key": ["id"]},
        **PAGES,
    ),
    "twice_as_documents": Case(
        *TWICE, types={}, status="PARTIAL", reason="20 rows were fetched twice", **PAGES
    ),
    "twice_allowed": Case(
        *TWICE, types=INTEGERS, status="COMPLETED", target=MERGE, max_repeated_rows=20, **PAGES
    ),
    "epochs": Case(
        body([{"at": 1700000000 + number} for number in range(30)]),
        types={"at": "timestamptz"},
        status="DEAD",
        reason="is not a text in ISO 8601",
    ),
    "declared_epochs": Case(
        body([{"at": 1700000000 + number} for number in range(30)]),
        types={"at": {"type": "timestamptz", "format": "epoch_s"}},
        status="COMPLETED",
    ),
    "odd_times": Case(
        body(
            [
                {"day": "2024-01-02"},
                *({"day": odd} for odd in ("01/02/2024", "13/02/2024", "today", "infinity", 20240102)),
                *({"at": odd} for odd in ("now", "2024-13-01T00:00:00Z")),
                {"local": "2024-01-02T03:04:05+02:00"},
                {"at": "2024-01-02 03:04:05"},
            ]
        ),
        types=TIMES,
        status="COMPLETED",
    ),
    "declared_times": Case(
        body(
            [
                {
                    "day": "13/02/2024",
                    "at": "2024-07-01T01:30:00",
                    "local": "1970-01-01T00:00:00Z",
                    "any": "infinity",
                    "ms": 1700000000123,
                    "us": 1700000000123456,
                }
            ]
        ),
        types={
            "day": {"type": "date", "format": "%d/%m/%Y"},
            "at": {"type": "timestamptz", "timezone": "Europe/Berlin"},
            "local": {"type": "timestamp", "timezone": "Asia/Tokyo"},
            "any": {"type": "date", "format": "postgresql"},
            "ms": {"type": "timestamptz", "format": "epoch_ms"},
            "us": {"type": "timestamptz", "format": "epoch_us"},
        },
        status="COMPLETED",
    ),
    "nulls": Case(
        body(
            [
                {"id": 1, "n": "", "day": ""},
                {"id": 2, "n": 7, "day": "2024-01-02"},
                {"id": 3, "n": "", "day": "-"},
            ]
        ),
        types={
            "id": "integer",
            "n": {"type": "integer", "null_if": [""]},
            "day": {"type": "date", "null_if": ["", "-"]},
        },
        status="COMPLETED",
    ),
    # What JMESPath compares and adds are doubles, as ever; what lands is what was sent.
    "calculated": Case(
        b'[{"p": 0.1, "n": 9007199254740993.25, "a": [0.25, 0.5]}, {"p": 0.2, "n": 1, "a": []}]',
        types={"n": "numeric", "total": {"type": "numeric", "path": "sum(a)"}},
        status="COMPLETED",
        select="[?p == `0.1`]",
    ),
    "documents": Case(b'[{"n": 9007199254740993.25, "m": 1.50}]', types={}, status="COMPLETED"),
    "wide_row": Case(
        body([{"id": 0}, {"id": 1} | dict.fromkeys(WIDE, "x" * 20), {"id": 2, "c7": "x"}]),
        types={"id": "integer", **dict.fromkeys(WIDE, "text")},
        status="COMPLETED",
    ),
    "long_key": Case(
        body([*ids(0, 20), {"id": "".join(f"{number:x}" for number in range(1500)), "v": "x"}]),
        types={"id": "text", "v": "text"},
        status="COMPLETED",
        target=MERGE,
    ),
}


@pytest.fixture
def served(world: World) -> Iterator[World]:
    """A source of each case, served."""
    with Bodies({f"/{name}": case.pages for name, case in CASES.items()}) as server:
        world.serve_from(server.base_url)
        for name, case in CASES.items():
            target = {"table": name, "disposition": "append", "columns": columns(**case.types), **case.target}
            fields = {**ONE_PAGE, "request": {"path": f"/{name}"}, **case.fields}
            # Equal pages are another matter.
            if fields["paging"]["type"] == "page":
                fields["paging"] = {"type": "page", "equal_pages": "allow"}
            world.add(with_file_defaults(source(name=name, target=target, **fields)))
        yield world


def test_tasks_end_as_their_values_deserve(served: World) -> None:
    tasks = {name: served.submit(name).task_id for name in CASES}
    while served.claim_and_run():
        pass
    ends = {name: served.task(task_id) for name, task_id in tasks.items()}
    found = {name: (end["status"], end["reason"]) for name, end in ends.items()}
    wrong = {
        name: end
        for name, end in found.items()
        if end[0] != CASES[name].status or (CASES[name].reason or "") not in (end[1] or "")
    }
    assert wrong == {}
    assert [row["id"] for row in served.rows("SELECT id FROM landing.integers ORDER BY id")] == [1, 2, 3]
    assert served.rows("SELECT count(*) AS n FROM landing.twice_merged") == [{"n": 20}]
    # What is not all there replaces nothing.
    assert served.rows("SELECT count(*) AS n FROM landing.twice_replaced") == [{"n": 0}]
    repeated = {name: end["result"]["repeated_rows"] for name, end in ends.items() if end["status"] != "DEAD"}
    assert {name: count for name, count in repeated.items() if count} == dict.fromkeys(
        ("twice_merged", "twice_appended", "twice_replaced", "twice_as_documents", "twice_allowed"), 20
    )
    years = served.rows("SELECT DISTINCT extract(year FROM at)::int AS year FROM landing.declared_epochs")
    assert years == [{"year": 2023}]
    assert served.rows("SELECT count(*) AS n FROM landing.long_key") == [{"n": 20}]
    bad = {name: end["result"]["bad_rows"] for name, end in ends.items() if end["status"] == "COMPLETED"}
    assert {name: bad[name] for name in ("long_key", "wide_row", "odd_times", "declared_times", "nulls")} == {
        "long_key": 1, "wide_row": 1, "odd_times": 8, "declared_times": 0, "nulls": 0,
    }  # fmt: skip
    assert_times(served)
    assert served.rows("SELECT n, day FROM landing.nulls ORDER BY id") == [
        {"n": None, "day": None},
        {"n": 7, "day": date(2024, 1, 2)},
        {"n": None, "day": None},
    ]
    assert served.rows("SELECT n::text, total::text FROM landing.calculated") == [
        {"n": "9007199254740993.25", "total": "0.75"}
    ]
    assert served.rows("SELECT document::text FROM landing.documents") == [
        {"document": '{"m": 1.50, "n": 9007199254740993.25}'}
    ]
    assert [row["id"] for row in served.rows("SELECT id FROM landing.wide_row ORDER BY id")] == [0, 2]


def test_repeated_rows_are_counted_although_the_last_shard_ends_beside_the_count(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, too_early = settling._count_repeated, []

    def look(*asked: Any) -> settling._Repeated:
        """As another group's settling does that looks a moment before the last page is committed."""
        counted = count(*asked)
        if not counted.final or too_early:
            return counted
        too_early.append(counted)
        return settling._Repeated()

    monkeypatch.setattr(settling, "_count_repeated", look)
    with Bodies({"/things": TWICE}) as server:
        world.serve_from(server.base_url)
        target = {"table": "things", "disposition": "append", "columns": columns(**INTEGERS)}
        fields = {**ONE_PAGE, **PAGES, "paging": {"type": "page", "equal_pages": "allow"}}
        world.add(with_file_defaults(source(target=target, request={"path": "/things"}, **fields)))
        task = world.task(world.collect())
    assert len(too_early) == 1
    assert (task["status"], task["result"]["repeated_rows"]) == ("PARTIAL", 20)


def assert_times(world: World) -> None:
    assert world.rows("SELECT day, at, local FROM landing.odd_times ORDER BY day") == [
        {"day": date(2024, 1, 2), "at": None, "local": None},
        {"day": None, "at": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), "local": None},
    ]
    assert world.rows('SELECT day, at, local, "any"::text, ms, us FROM landing.declared_times') == [
        {
            "day": date(2024, 2, 13),
            "at": datetime(2024, 6, 30, 23, 30, tzinfo=UTC),
            "local": datetime(1970, 1, 1, 9),
            "any": "infinity",
            "ms": datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC),
            "us": datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC),
        }
    ]


def exact(records: Sequence[str], path: str) -> bytes:
    listed = f"[{', '.join(records)}]"
    return (
        listed if path == "@" else f'{{"total": {len(records)}.0, "rows": {listed}, "more": null}}'
    ).encode()


NUMBER = "123456789.123456789123456789"


@pytest.mark.parametrize("path", ["@", "rows"])
@pytest.mark.parametrize("more", ["", ', "more": 0.10'])
def test_numbers_and_hashes_are_those_that_were_sent_on_every_way(world: World, path: str, more: str) -> None:
    """Pages are read as rows, and some as records: their lines and hashes are the same."""
    records = [f'{{"id": {number}, "n": {NUMBER}, "v": "r"{more}}}' for number in range(20)]
    odd = [f'{{"v": "r", "n": {NUMBER}, "id": {number}.0{more}}}' for number in range(20, 25)]
    pages = [exact(records, path), exact(odd, path), exact([], path)]
    with Bodies({"/things": pages}) as server:
        world.serve_from(server.base_url)
        target = {
            "table": "things",
            "disposition": "append",
            "columns": columns(id="integer", n="numeric(38,18)", v="text"),
        }
        fields = {**PAGES, "records": path, "request": {"path": "/things"}}
        world.add(with_file_defaults(source(target=target, **fields)))
        task = world.task(world.collect())
    assert (task["status"], task["reason"]) == ("COMPLETED", None)
    found = world.rows(
        "SELECT id, n, v, _extra::text AS extra, _content_hash AS hash FROM landing.things ORDER BY id"
    )
    assert [row["id"] for row in found] == list(range(25))
    assert {(row["n"], row["v"]) for row in found} == {(Decimal(NUMBER), "r")}
    assert {row["extra"] for row in found} == {'{"more": 0.10}' if more else None}
    assert len({row["hash"] for row in found}) == 25
    # The same rows again, all as records.
    escaped = [record.replace('"r"', '"\\u0072"') for record in [*records, *odd]]
    again = [exact(escaped[:20], path), exact(escaped[20:], path), exact([], path)]
    with Bodies({"/things": again}) as server:
        world.serve_from(server.base_url)
        world.add(with_file_defaults(source(name="again", target={**target, "table": "again"}, **fields)))
        assert world.task(world.collect("again"))["status"] == "COMPLETED"
    hashes = world.rows("SELECT id, _content_hash AS hash FROM landing.again ORDER BY id")
    assert hashes == [{"id": row["id"], "hash": row["hash"]} for row in found]
