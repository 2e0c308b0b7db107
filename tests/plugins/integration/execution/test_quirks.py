"""What APIs really do, end to end: exactly their rows, or an end that names what is the matter; never wrong rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from collect_ops.sources.file_defaults import with_file_defaults
from collect_ops.sources.model import Source
from tests.factories import source
from tests.plugins.integration.world import World
from tests.servers.quirks import ROWS, QuirkyServer

OFFSET: dict[str, Any] = {"paging": {"type": "offset"}}
PAGE: dict[str, Any] = {"paging": {"type": "page"}}
CURSOR: dict[str, Any] = {"paging": {"type": "cursor", "cursor": "next_cursor"}, "page_size": None}
TOTAL: dict[str, Any] = {"total": {"type": "body", "path": "total"}}
NEXT: dict[str, Any] = {"paging": {"type": "next_url", "next_url": "next"}, "page_size": None}
LINK: dict[str, Any] = {"paging": {"type": "link_header"}, "page_size": None}
ALL = tuple(range(ROWS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A quirk, how a source declares it, and what becomes of a task.

    Args:
        quirk: Of `QUIRKS`.
        fields: What the source declares beside what all do.
        ids: The ids that land, in any order.
        status: The task's.
        error: The class of its first error.
        named: What the reason names.
    """

    quirk: str
    fields: dict[str, Any] = field(default_factory=dict)
    ids: tuple[int | None, ...] = ALL
    status: str = "COMPLETED"
    error: str | None = None
    named: str = ""


def refused(quirk: str, fields: dict[str, Any], error: str, named: str, ids: tuple[int, ...]) -> Case:
    return Case(quirk=quirk, fields=fields, ids=ids, status="DEAD", error=error, named=named)


def paging(kind: str, **fields: Any) -> dict[str, Any]:
    return {"paging": {"type": kind, **fields}}


FIRST_TEN = tuple(range(10))
CASES: dict[str, Case] = {
    # Equal pages.
    "offset ignored, shards": refused(
        "offset_ignored", OFFSET | TOTAL, "EqualPage", "offset_param 'offset'", FIRST_TEN
    ),
    "offset ignored, stream": refused(
        "offset_ignored_total_unknown", OFFSET, "EqualPage", "'offset'", FIRST_TEN
    ),
    "offset ignored, no key": refused(
        "offset_ignored", OFFSET | {"key": []}, "EqualPage", "'offset'", FIRST_TEN
    ),
    "page ignored, shards": refused(
        "page_ignored", PAGE | TOTAL, "EqualPage", "page_param 'page'", FIRST_TEN
    ),
    "next address, same rows": refused("next_page_ignored", NEXT, "EqualPage", "next_url 'next'", FIRST_TEN),
    "link, same rows": refused("next_page_ignored", LINK, "EqualPage", "Link header", FIRST_TEN),
    "offset ignored, nothing selected": refused(
        "offset_ignored", OFFSET | TOTAL | {"select": "[?id > `100`]"}, "EqualPage", "'offset'", ()
    ),
    "new cursor, same rows": refused("new_cursor_same_rows", CURSOR, "EqualPage", "'cursor'", FIRST_TEN),
    "last page for ever": refused("last_page_for_ever", PAGE, "EqualPage", "'page'", ALL),
    "last page for ever, declared": Case(
        quirk="last_page_for_ever", fields=paging("page", equal_pages="end")
    ),
    "offset ignored, allowed": Case(
        quirk="offset_ignored",
        fields=paging("offset", equal_pages="allow") | TOTAL,
        ids=FIRST_TEN * 4 + FIRST_TEN[:5],
        status="PARTIAL",
        named="50",
    ),
    "pages of one equal row": Case(
        quirk="one_row_pages", fields=CURSOR | {"key": [], "max_repeated_rows": None}, ids=(None,) * 4
    ),
    "150 empty pages": Case(quirk="empty_scan", fields=CURSOR),
    "nested names": Case(
        quirk="nested",
        fields=paging("cursor", cursor="data.after", cursor_param="variables.after", location="body")
        | {
            "request": {
                "path": "/quirk/nested",
                "method": "POST",
                "body": {"query": "{…}", "variables": {"n": 10}},
            }
        }
        | {"records": "data.rows", "page_size": None},
    ),
    "nested names, by offset": Case(
        quirk="nested_offset",
        fields=paging("offset", offset_param="page.offset", limit_param="page.limit", location="body")
        | TOTAL
        | {"request": {"path": "/quirk/nested_offset", "method": "POST"}},
    ),
    # Where pages begin.
    "first offset 1": Case(
        quirk="first_is_one",
        fields=paging("offset", offset_param="startIndex", limit_param="count", first_offset=1) | TOTAL,
    ),
    "first offset 1, streamed": Case(
        quirk="first_is_one",
        fields=paging("offset", offset_param="startIndex", limit_param="count", first_offset=1),
    ),
    "first offset 1, not declared": Case(
        quirk="first_is_one",
        fields=paging("offset", offset_param="startIndex", limit_param="count") | TOTAL,
        status="PARTIAL",
        named="fetched twice",
        ids=(*range(ROWS - 1), 9),
    ),
    "offset in pages": Case(quirk="offset_by_pages", fields=OFFSET | TOTAL | {"batch_size": 25}),
    "one page size": Case(quirk="one_size_only", fields=OFFSET | TOTAL),
    "one page size, streamed": Case(quirk="one_size_only", fields=OFFSET),
    "no page size in the request": Case(
        quirk="strict_parameters", fields=paging("page", size_param=None) | TOTAL | {"page_size": None}
    ),
    "no page size in the request, split": Case(
        quirk="strict_parameters", fields=paging("page", size_param=None) | TOTAL
    ),
    "select": Case(
        quirk="mixed_kinds",
        fields=OFFSET | TOTAL | {"select": "[?kind=='b']"},
        ids=tuple(number for number in ALL if number % 2),
    ),
    "nothing selected": Case(quirk="mixed_kinds", fields=OFFSET | TOTAL | {"select": "[?kind=='c']"}, ids=()),
    "thinned pages, not declared": Case(
        quirk="thinned",
        fields=OFFSET | TOTAL,
        status="PARTIAL",
        named="fetched twice",
        ids=(*(number for number in ALL if number % 5), 8, 9, 16, 17, 24, 31, 38, 39, 44),
    ),
    "thinned pages": Case(
        quirk="thinned",
        fields=paging("offset", advance_by="page_size") | TOTAL,
        ids=tuple(number for number in ALL if number % 5),
    ),
    "a page thinned to nothing": Case(
        quirk="thinned_to_nothing",
        fields=paging("page", advance_by="page_size"),
        ids=tuple(number for number in ALL if number // 10 != 1),
    ),
    "a page thinned to nothing, by page": Case(
        quirk="thinned_to_nothing", fields=PAGE, ids=tuple(number for number in ALL if number // 10 != 1)
    ),
    "a page thinned to nothing, not declared": refused(
        "thinned_to_nothing", OFFSET, "PagingLoop", "advance_by", FIRST_TEN
    ),
    # Totals.
    "total moves": Case(
        quirk="total_moves", fields=OFFSET | TOTAL, status="PARTIAL", named="55", ids=tuple(range(ROWS))
    ),
    "total moves, declared": Case(
        quirk="total_moves",
        fields=OFFSET | {"total": TOTAL["total"] | {"at_least": True}},
        ids=tuple(range(ROWS + 10)),
    ),
    "total shrinks": Case(
        quirk="total_shrinks", fields=OFFSET | TOTAL, status="PARTIAL", named="35", ids=tuple(range(35))
    ),
    "total capped, by page": Case(
        quirk="total_capped_by_page", fields=PAGE | {"total": TOTAL["total"] | {"capped_at": 30}}
    ),
    "total capped, pages say more": Case(
        quirk="total_capped_with_more",
        fields=OFFSET | TOTAL | {"batch_size": 20},
        status="PARTIAL",
        named="total.capped_at",
    ),
    "total capped, pages say more, declared": Case(
        quirk="total_capped_with_more", fields=OFFSET | {"total": TOTAL["total"] | {"capped_at": 30}}
    ),
    "total capped, pages say more, streamed": Case(
        quirk="total_capped_with_more",
        fields=OFFSET | TOTAL | {"batch_size": 100},
    ),
    "more after every full page": Case(
        quirk="more_after_every_full_page", fields=OFFSET | TOTAL, ids=tuple(range(40))
    ),
    **{
        f"more without a next one, {kind}": refused(
            "more_without_a_place", fields, "NextPageMissing", place, ()
        )
        for kind, fields, place in (
            ("cursor", CURSOR, "paging.cursor 'next_cursor'"),
            ("next_url", NEXT, "paging.next_url 'next'"),
            ("link_header", LINK, "Link header"),
        )
    },
    "more without a next one, declared": Case(
        quirk="more_without_a_place", fields=CURSOR | {"end": [{"body": "@"}]}, ids=FIRST_TEN
    ),
    **{
        f"total in a header, {name}": Case(
            quirk=f"header_total_{name}", fields=OFFSET | {"total": {"type": "header", "name": "X-Total"}}
        )
        for name in ("missing", "negative", "with_commas", "a_range")
    },
    "total in a header": Case(
        quirk="header_total", fields=OFFSET | {"total": {"type": "header", "name": "X-Total"}}
    ),
    "total of a request, no number": Case(
        quirk="has_more_by_offset",
        fields=OFFSET
        | {"total": {"type": "request", "path": "/quirk/count_without_number", "value": "count"}},
    ),
    "total capped": Case(quirk="total_capped", fields=OFFSET | {"total": TOTAL["total"] | {"capped_at": 30}}),
    "a stream with one row more": Case(quirk="stream_with_one_more", fields=CURSOR | TOTAL, named="44"),
    **{
        f"total {name}": Case(quirk=f"total_{name}", fields=OFFSET | TOTAL)
        for name in ("negative", "with_commas", "or_more", "as_an_object", "null")
    },
    "no content": Case(quirk="no_content", fields=OFFSET | TOTAL, ids=()),
    # The end.
    **{
        f"{status} behind the end": Case(
            quirk=f"behind_the_end_{status}", fields=PAGE | {"end": [{"status": [status]}]}
        )
        for status in (400, 404, 416, 422)
    },
    **{
        f"{status} behind the end, by offset": Case(
            quirk=f"offset_behind_the_end_{status}", fields=OFFSET | {"end": [{"status": [status]}]}
        )
        for status in (400, 404, 416, 422)
    },
    "the next address leads nowhere": Case(
        quirk="next_address_leads_nowhere", fields=NEXT | {"end": [{"status": [404]}]}
    ),
    "the link leads nowhere": Case(
        quirk="next_address_leads_nowhere", fields=LINK | {"end": [{"status": [404]}]}
    ),
    "the link leads nowhere, not declared": refused(
        "next_address_leads_nowhere", LINK, "PageNotThere", "end: [{status: [404]}]", ALL
    ),
    "404 behind the end, not declared": refused(
        "behind_the_end_404", PAGE, "PageNotThere", "end: [{status: [404]}]", ALL
    ),
    "400 behind the end, by its body": Case(
        quirk="behind_the_end_400", fields=PAGE | {"end": [{"status": [400], "body": "code == 'no_page'"}]}
    ),
    "another 400": refused(
        "behind_the_end_400",
        PAGE | {"end": [{"status": [400], "body": "code == 'else'"}]},
        "PageNotThere",
        "400",
        ALL,
    ),
    "nothing matches": Case(
        quirk="nothing_matches", fields=PAGE | TOTAL | {"end": [{"status": [404]}]}, ids=()
    ),
    "nothing matches, not declared": refused("nothing_matches", PAGE, "UrlNotFound", "404", ()),
    "the next page leads nowhere": Case(quirk="next_leads_nowhere", fields=CURSOR | TOTAL),
    "the next page leads nowhere, total unknown": refused(
        "next_leads_nowhere", CURSOR, "PageNotThere", "404", ALL
    ),
    "has_more": Case(quirk="has_more", fields=PAGE),
    "hasMore, by offset": Case(quirk="has_more_by_offset", fields=OFFSET),
    "has_more beside a cursor": Case(quirk="has_more_beside_a_cursor", fields=CURSOR),
    "total_pages": Case(quirk="total_pages", fields=PAGE | {"end": [{"body": "page >= total_pages"}]}),
    "a header": Case(
        quirk="says_it_in_a_header", fields=PAGE | {"end": [{"headers": {"X-Has-More": "false"}}]}
    ),
    "results in a Link": Case(
        quirk="sentry", fields={"paging": {"type": "link_header"}, "records": "@", "page_size": None}
    ),
    **{
        f"last cursor {name}": Case(quirk=f"last_cursor_{name}", fields=CURSOR)
        for name in ("zero", "zero_text", "minus_one", "empty", "false")
    },
    "the last page names itself": Case(quirk="names_itself", fields=CURSOR),
    "every page names the same": refused(
        "names_itself_at_once", CURSOR, "EqualPage", "cursor_param", FIRST_TEN
    ),
    "one cursor, and always other rows": refused(
        "scroll", CURSOR, "PagingLoop", "goes on by itself", tuple(range(10))
    ),
    # No rows, and one row.
    "records null": Case(quirk="records_null", fields=PAGE, ids=()),
    "records null beside errors": refused("records_null_by_error", PAGE, "RecordsNotAList", "null", ()),
    **{
        f"records null beside a {name} on the way": refused(
            f"records_null_by_{name}", PAGE, "RecordsNotAList", "the backend timed out", tuple(range(20))
        )
        for name in ("status", "code", "success", "fault")
    },
    "records missing": refused("records_missing", PAGE, "RecordsNotAList", "records_may_be: [absent]", ()),
    "records missing, declared": Case(
        quirk="records_missing", fields=PAGE | {"records_may_be": ["absent"]}, ids=()
    ),
    "records missing, total 0": Case(quirk="records_missing_total_0", fields=PAGE | TOTAL, ids=()),
    "one record as an object": Case(
        quirk="one_record", fields=OFFSET | TOTAL | {"records_may_be": ["object"]}, ids=tuple(range(41))
    ),
    "one record as an object, not declared": refused(
        "one_record", OFFSET | TOTAL, "RecordsNotAList", "records_may_be: [object]", tuple(range(40))
    ),
}


def declared(name: str, case: Case) -> Source:
    """A source as its file means it, that appends: a row that lands twice is there twice."""
    fields: dict[str, Any] = {"request": {"path": f"/quirk/{case.quirk}"}, "total": {"type": "unknown"}}
    fields |= {"batch_size": 30, "page_size": 10, "limits": {"concurrency": 1}, **case.fields}
    key = fields.pop("key", ["id"])
    columns = {"id": {"type": "bigint"}, "name": {"type": "text"}}
    fields["target"] = {"table": name, "disposition": "append", "columns": columns, "key": key}
    return with_file_defaults(source(name, **fields))


@pytest.fixture(scope="module")
def server() -> Iterator[QuirkyServer]:
    with QuirkyServer() as started:
        yield started


def collect_all(world: World, names: dict[str, str]) -> dict[str, int]:
    """One task of each source, run in as many runs as the lane has room for."""
    tasks = {label: world.submit(name).task_id for label, name in names.items()}
    while world.claim_and_run():
        pass
    return tasks


def outcome_of(world: World, table: str, task_id: int) -> tuple[list[int | None], str, str | None, str]:
    task = world.task(task_id)
    error = (task["error"] or {}).get("class")
    there = world.rows("SELECT to_regclass(%s) AS name", f"landing.{table}")[0]["name"]
    rows = world.rows(f"SELECT id FROM landing.{table} ORDER BY id") if there else []
    return [each["id"] for each in rows], task["status"], error, task["reason"] or ""


@pytest.mark.timeout(300)
def test_every_quirk_ends_as_it_must(world: World, server: QuirkyServer) -> None:
    world.serve_from(server.base_url)
    server.requests.clear()
    names = {label: f"case_{number}" for number, label in enumerate(CASES)}
    world.add(*(declared(names[label], case) for label, case in CASES.items()))
    tasks = collect_all(world, names)
    wrong: dict[str, Any] = {}
    for label, case in CASES.items():
        ids, status, error, reason = outcome_of(world, names[label], tasks[label])
        expected = (sorted(case.ids, key=lambda number: number or 0), case.status, case.error)
        if (ids, status, error) != expected or case.named not in reason:
            wrong[label] = {"ids": ids, "status": status, "error": error, "reason": reason}
    assert wrong == {}
    left = world.rows(
        "SELECT t.source FROM collect.page_fingerprint f JOIN collect.task t ON t.id = f.task_id"
        " WHERE t.status IN ('COMPLETED', 'PARTIAL')"
    )
    assert left == []
