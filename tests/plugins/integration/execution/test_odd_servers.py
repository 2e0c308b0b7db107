"""What servers answer beside rows, end to end: "later", links, bodies and encodings as they write them.

Each case is a source of its own, and those of a test run together.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import brotli
import orjson
import pytest
from backports import zstd

from collect_ops.sources.file_defaults import with_file_defaults
from tests.plugins.integration.world import World, source
from tests.servers.certificates import self_signed, server_context, trusting_context
from tests.servers.odd import Answering, Asked, OddServer, reply, rows

LINKS = {"paging": {"type": "link_header"}}
NEXT = {"paging": {"type": "next_url", "next_url": "next"}}
TARGET = {
    "columns": {"id": {"type": "bigint"}, "name": {"type": "text"}, "x": {"type": "double precision"}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A server's way, how a source declares it, and what becomes of a task.

    Args:
        answers: What its path answers.
        fields: What the source declares beside what all do.
        request: What its request declares.
        ids: The ids that land.
        bad: How many bad rows there are.
        bad_reason: What the reason of one names.
        status: The task's.
        named: What the task's reason names.
        requests: How many requests come, if that matters.
    """

    answers: Answering
    fields: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    ids: tuple[int, ...] = (0, 1, 2)
    bad: int = 0
    bad_reason: str = ""
    status: str = "COMPLETED"
    named: tuple[str, ...] = ()
    requests: int | None = None


def run(world: World, cases: Mapping[str, Case], *, base: str = "") -> OddServer:
    """Run all cases and compare what became of them."""
    paths = {name: f"c{number}" for number, name in enumerate(cases)}
    answering = {f"{base}{paths[name]}": case.answers for name, case in cases.items()}
    tasks = {}
    with OddServer(answering) as server:
        world.serve_from(f"{server.base_url}/{base}".rstrip("/"))
        for name, case in cases.items():
            table = paths[name]
            declared: dict[str, Any] = {
                # A host of its own: what one server says pauses no other.
                "connection": f"{table}_api",
                "request": {"path": f"/{table}", **case.request},
                "paging": {"type": "none"},
                "total": {"type": "unknown"},
                "page_size": None,
                "retries": {
                    "http_attempts": 3,
                    "http_backoff_s": 0.01,
                    "http_max_backoff_s": 5,
                    "max_retries": 0,
                },
                "target": {"table": table, **TARGET},
                **case.fields,
            }
            world.add(with_file_defaults(source(table, **declared)))
            tasks[name] = world.submit(table).task_id
        while world.claim_and_run():
            pass
    found = {name: _outcome(world, tasks[name], paths[name], case) for name, case in cases.items()}
    expected = {name: (case.status, case.ids, case.bad, ()) for name, case in cases.items()}
    assert found == expected
    for name, case in cases.items():
        if case.requests is not None:
            assert len(server.asked[f"{base}{paths[name]}"]) == case.requests, name
    return server


def _outcome(world: World, task_id: int, table: str, case: Case) -> tuple[Any, ...]:
    """Status, ids, bad rows, and what is not named that should be."""
    task = world.task(task_id)
    bad = world.rows("SELECT reason FROM collect.bad_row WHERE task_id = %s", task_id)
    missing = [text for text in case.named if text not in (task["reason"] or "")]
    if case.bad_reason and not all(case.bad_reason in each["reason"] for each in bad):
        missing.append(str(bad))
    if missing:
        missing.append(task["reason"])
    there = world.rows("SELECT to_regclass(%s) AS there", f"landing.{table}")[0]["there"]
    ids = (
        ()
        if there is None
        else tuple(each["id"] for each in world.rows(f"SELECT id FROM landing.{table} ORDER BY id"))
    )
    return task["status"], ids, len(bad), tuple(missing)


def once(body: Any, *headers: str, status: str = "200 OK") -> Answering:
    """Always the same."""
    return lambda _: reply(body, *headers, status=status)


def first(*replies: bytes) -> Answering:
    """These replies first, then the rows."""
    return lambda asked: replies[asked.number] if asked.number < len(replies) else reply(rows(0, 3))


def in_encoding(encoding: str, body: bytes) -> Answering:
    return lambda _: reply(body, f"Content-Encoding: {encoding}")


THREE = (
    b'{"rows": [{"id": 0, "name": "a", "x": 1.5}, {"id": 1, "name": "b", "x": %b}, {"id": 2, "name": "c"}]}'
)
NAMES = b'{"rows": [{"id": 0, "name": "a"}, {"id": 1, "name": "%b"}, {"id": 2, "name": "c"}]}'
ROWS = orjson.dumps(rows(0, 3))


def one_bad(body: bytes, reason: str, **fields: Any) -> Case:
    return Case(answers=once(body), ids=(0, 2), bad=1, bad_reason=reason, **fields)


SLIGHTLY_BROKEN: dict[str, Case] = {
    "NaN": one_bad(THREE % b"NaN", "NaN"),
    "Infinity": one_bad(THREE % b"-Infinity", "-Infinity"),
    "beyond a double": one_bad(THREE % b"1e400", "1e400"),
    "thousands of digits": one_bad(THREE % (b"7" * 5000), "7777"),
    "NaN in a field that is not declared": one_bad(THREE.replace(b'"x"', b'"y"') % b"NaN", "NaN"),
    "NaN within a field": one_bad(THREE % b'{"deep": [1, NaN]}', "NaN"),
    "NaN beside the rows": Case(answers=once(ROWS[:-1] + b', "took": NaN}')),
    "a byte that is not UTF-8": one_bad(NAMES % b"Jos\xe9", "0xE9"),
    "a NUL": one_bad(NAMES % b"a\0b", "NUL"),
    "a control character": Case(answers=once(NAMES % b"a\tb\x01")),
    "a guard": Case(answers=once(b")]}'\n" + ROWS)),
    "utf-8 as an encoding": Case(answers=in_encoding("utf-8", ROWS)),
    "none as an encoding": Case(answers=in_encoding("none", ROWS)),
    "br": Case(answers=in_encoding("br", brotli.compress(ROWS))),
    "zstd": Case(answers=in_encoding("zstd", zstd.compress(ROWS))),
    "gzip, gzip": Case(answers=in_encoding("gzip, gzip", gzip.compress(gzip.compress(ROWS)))),
    "gzip twice in the header only": Case(answers=in_encoding("gzip, gzip", gzip.compress(ROWS))),
    "two headers": Case(
        answers=once(gzip.compress(gzip.compress(ROWS)), "Content-Encoding: gzip", "Content-Encoding: gzip")
    ),
    "plain, called gzip": Case(answers=in_encoding("gzip", ROWS)),
    "gzip, called nothing": Case(answers=once(gzip.compress(ROWS))),
    "a byte behind the gzip member": Case(answers=in_encoding("gzip", gzip.compress(ROWS) + b"\n")),
    "a compressed body that is cut off": Case(
        answers=in_encoding("br", brotli.compress(ROWS * 50)[:-20]),
        status="DEAD",
        ids=(),
        named=("content encoding br",),
    ),
    "two equal Content-Length": Case(
        answers=once(ROWS, f"Content-Length: {len(ROWS)}"), status="DEAD", ids=(), named=("Content-Length",)
    ),
    "no JSON": Case(
        answers=once(b'{"rows": [{"id": 0},\n {"id" 1}]}'),
        status="DEAD",
        ids=(),
        named=("line 2 column 8", "'1'"),
    ),
}


def test_one_broken_value_costs_its_row_and_nothing_else(world: World) -> None:
    run(world, SLIGHTLY_BROKEN)
    for name, name_there in (("a control character", "a\tb\x01"),):
        table = f"c{list(SLIGHTLY_BROKEN).index(name)}"
        assert world.rows(f"SELECT name FROM landing.{table} WHERE id = 1") == [{"name": name_there}]


def test_documents_with_an_odd_number_are_bad_rows_too(world: World) -> None:
    target = {"table": "documents", "columns": {}, "key": [], "disposition": "append"}
    with OddServer({"d": once(THREE % b"NaN")}) as server:
        world.serve_from(server.base_url)
        declared = {"paging": {"type": "none"}, "total": {"type": "unknown"}, "page_size": None}
        world.add(source(request={"path": "/d"}, target=target, **declared))
        task = world.task(world.collect())
    assert (task["status"], task["result"]["rows_landed"], task["result"]["bad_rows"]) == ("COMPLETED", 2, 1)


SOON = datetime.now(UTC) + timedelta(seconds=1)
NOTE = {"Note": "Our standard API call frequency is 5 calls per minute."}
FORBIDDEN = "403 Forbidden"


def busy(*headers: str, status: str = "429 Slow", body: Any = None) -> Answering:
    return first(reply({"message": "slow down"} if body is None else body, *headers, status=status))


def soon(kind: str) -> Answering:
    """429 with a moment one second from when it is asked."""

    def answer(asked: Asked) -> bytes:
        if asked.number:
            return reply(rows(0, 3))
        at = time.time() + 1
        spelled = {
            "epoch": f"{at:.0f}",
            "epoch in ms": f"{at * 1000:.0f}",
            "ISO": datetime.fromtimestamp(at, UTC).isoformat(),
            "HTTP": format_datetime(datetime.fromtimestamp(at, UTC), usegmt=True),
        }[kind]
        return reply({"message": "slow down"}, f"Retry-After: {spelled}", status="429 Slow")

    return answer


WAITS: dict[str, Case] = {
    **{
        f"Retry-After: {spelled}": Case(answers=busy(f"Retry-After: {spelled}"), requests=2)
        for spelled in ("0.2", "200ms", "1s", "1", "0")
    },
    **{
        f"Retry-After in {kind}": Case(answers=soon(kind), requests=2)
        for kind in ("epoch", "epoch in ms", "ISO", "HTTP")
    },
    "403 with Retry-After": Case(answers=busy("Retry-After: 1", status=FORBIDDEN), requests=2),
    "403 with nothing left": Case(
        answers=busy(
            "X-RateLimit-Limit: 60", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1", status=FORBIDDEN
        ),
        requests=2,
    ),
    "403 with nothing left, nobody knows for how long": Case(
        answers=busy("X-RateLimit-Remaining: 0", status=FORBIDDEN), requests=2
    ),
    "403 for good": Case(
        answers=once({"error": {"message": "this key may not read things"}}, status=FORBIDDEN),
        status="DEAD",
        ids=(),
        named=("403", "this key may not read things"),
        requests=1,
    ),
    "403 in gzip": Case(
        answers=once(
            gzip.compress(b'{"detail": "no such plan"}'), "Content-Encoding: gzip", status=FORBIDDEN
        ),
        status="DEAD",
        ids=(),
        named=("no such plan",),
    ),
    "500 with Retry-After": Case(answers=busy("Retry-After: 1", status="500 No"), requests=2),
    "202 and nothing": Case(answers=first(reply("", status="202 Accepted")), requests=2),
    "202 and {}": Case(answers=first(reply({}, status="202 Accepted")), requests=2),
    "202 and a state": Case(
        answers=first(reply({"status": "running"}, "Retry-After: 0.1", status="202 Accepted")), requests=2
    ),
    "202 and no rows": Case(answers=first(reply({"rows": []}, status="202 Accepted")), requests=2),
    "202 and rows": Case(answers=once(rows(0, 3), status="202 Accepted"), requests=1),
    "202 for ever": Case(
        answers=once({"status": "still running"}, status="202 Accepted"),
        status="DEAD",
        ids=(),
        named=("not ready", "still running"),
        requests=3,
    ),
    "200 with a note": Case(
        answers=first(reply(NOTE)), fields={"retry_when": [{"body": "Note", "wait_s": 0.1}]}, requests=2
    ),
    "200 with a note, not declared": Case(
        answers=once(NOTE), status="DEAD", ids=(), named=("5 calls per minute",), requests=1
    ),
    "200 with a note for ever": Case(
        answers=once(NOTE),
        fields={"retry_when": [{"body": "Note", "wait_s": 0.1, "pauses": "request"}]},
        status="DEAD",
        ids=(),
        named=("5 calls per minute", "retry_when"),
        requests=3,
    ),
    "400 with a code": Case(
        answers=first(reply({"error": {"code": "rate_limited"}}, status="400 No")),
        fields={"retry_when": [{"status": [400], "body": "error.code == 'rate_limited'"}]},
        requests=2,
    ),
    "400 with another code": Case(
        answers=once({"error": {"code": "bad_field"}}, status="400 No"),
        fields={"retry_when": [{"status": [400], "body": "error.code == 'rate_limited'"}]},
        status="DEAD",
        ids=(),
        named=("400", "bad_field"),
        requests=1,
    ),
    "a text that is no JSON": Case(
        answers=first(reply("busy, come back", "X-State: busy", "Content-Type: text/plain")),
        fields={"retry_when": [{"headers": {"X-State": "busy"}}]},
        requests=2,
    ),
    "a header": Case(
        answers=first(reply(rows(7, 1), "X-Report: Pending (3)")),
        fields={"retry_when": [{"headers": {"x-report": "pending*"}}]},
        requests=2,
    ),
}  # fmt: skip


def test_later_is_waited_for_in_every_spelling(world: World) -> None:
    began = time.monotonic()
    run(world, WAITS)
    assert time.monotonic() - began < 60
    pauses = world.rows(
        "SELECT connection FROM collect.host WHERE paused_until > now() + interval '1 minute'"
    )
    assert pauses == []


def test_a_limit_of_0_pauses_nothing(world: World) -> None:
    none_left = ("X-RateLimit-Limit: 0", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 3600")

    def answer(asked: Asked) -> bytes:
        start = int(asked.query["offset"])
        return reply(rows(start, max(0, min(3, 9 - start))), *none_left)

    fields = {"paging": {"type": "offset"}, "page_size": 3}
    run(world, {"three pages": Case(answers=answer, fields=fields, ids=tuple(range(9)))})


def test_a_note_of_a_limit_pauses_the_host_and_says_so(world: World) -> None:
    with OddServer({"noted": once(NOTE)}) as server:
        world.serve_from(server.base_url)
        declared = {"paging": {"type": "none"}, "total": {"type": "unknown"}, "page_size": None}
        world.add(
            source(request={"path": "/noted"}, retry_when=[{"body": "Note", "wait_s": 3600}], **declared)
        )
        task = world.task(world.collect())
        late = world.submit(params={}, force=True).task_id
        world.claim()
        assert len(server.asked["noted"]) == 1
    assert task["status"] == "RETRYING"
    assert "5 calls per minute" in task["reason"]
    held = world.task(late)
    assert held["status"] == "HELD"
    assert "5 calls per minute" in held["reason"]
    (host,) = world.rows("SELECT paused_until - now() AS pause FROM collect.host")
    assert host["pause"].total_seconds() == pytest.approx(3600, abs=60)


def pages_by(link: str) -> Answering:
    """Three pages of a row; `{}` in the link stands for the next page's query."""

    def answer(asked: Asked) -> bytes:
        page = int(asked.query.get("page", 0))
        body = [{"id": page, "name": "a"}]
        return reply(body, f"Link: {link.format(f'page={page + 1}')}" if page < 2 else "X-Last: yes")

    return answer


def linked(path: str, link: str, **fields: Any) -> Case:
    return Case(answers=pages_by(link.replace("PATH", path)), fields={**LINKS, "records": "@", **fields})


def signed(asked: Asked) -> bytes:
    """The next page is there for who asks for it as it was spelled."""
    if not asked.query:
        return reply(rows(0, 1, next=f"/{asked.path}?{SIGNED}"))
    if asked.target != f"/{asked.path}?{SIGNED}":
        return reply({"message": f"signature of {asked.target}"}, status="403 Forbidden")
    return reply(rows(1, 2, next=None))


SIGNED = "key=AKIA%2F2026%2fx&at=2026-11-30T08%3A00%3A00Z&q=a+b%20c%7E~&f[a]=1&sig=ab%2Bcd%3D%3D"
NO_BRACKETS = Case(
    answers=pages_by('/c6?{}; rel="next"'),
    fields={**LINKS, "records": "@"},
    status="DEAD",
    ids=(),
    named=("link_header", "does not stand in < and >"),
)
LINKED: dict[str, Case] = {
    "apostrophes": linked("c0", "</PATH?{}>; rel='next'"),
    "several relations": linked("c1", '</PATH?{}>; rel="last next"'),
    "several links": linked("c2", '</PATH>; rel="first", </PATH?{}>; rel="next", </PATH?page=2>; rel="last"'),
    "commas in parameters": linked("c3", '</PATH?{}>; title="rows, more"; rel="next"'),
    "commas without quotes": linked("c4", "</PATH?{}>; title=rows, more; rel=next"),
    "spelled as it is signed": Case(answers=signed, fields=NEXT),
    "no brackets": NO_BRACKETS,
}


def test_links_are_read_as_servers_write_them(world: World) -> None:
    run(world, LINKED)


def test_links_of_a_server_behind_a_gateway(world: World) -> None:
    """It does not know the prefix that the gateway takes off its paths."""

    def behind(asked: Asked) -> bytes:
        page = int(asked.query.get("page", 0))
        own_path = asked.path.removeprefix("gate/v1/")
        following = f"{asked.headers['host']}/{own_path}?page={page + 1}"
        return reply(rows(page, 1, next=f"http://{following}" if page < 2 else None))

    def relative(asked: Asked) -> bytes:
        page = int(asked.query.get("page", 0))
        return reply(
            rows(
                page, 1, next=f"/{asked.path.removeprefix('gate/v1/')}?page={page + 1}" if page < 2 else None
            )
        )

    run(
        world,
        {"absolute": Case(answers=behind, fields=NEXT), "relative": Case(answers=relative, fields=NEXT)},
        base="gate/v1/",
    )


def test_links_of_a_server_behind_a_proxy_that_ends_tls(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It believes that it is asked over http; the links go over https, and credentials with them."""
    certificate = self_signed(tmp_path)
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusting_context(certificate))

    def answer(asked: Asked) -> bytes:
        if asked.headers.get("authorization") != "Bearer s3cret-word":
            return reply({"message": "who are you?"}, status="401 No")
        page = int(asked.query.get("page", 0))
        following = f"http://{asked.headers['host']}/things?page={page + 1}"
        if "moved" in asked.query:
            return reply(rows(page, 1, next=following if page < 2 else None))
        location = f"http://{asked.headers['host']}{asked.target}{'&' if asked.query else '?'}moved=1"
        return reply("", f"Location: {location}", status="301 Moved")

    with OddServer({"things": answer}, tls=server_context(certificate)) as server:
        world.serve_from(server.base_url, password="s3cret-word")
        declared = {"total": {"type": "unknown"}, "page_size": None, **NEXT}
        world.add(source(request={"path": "/things"}, auth={"type": "bearer"}, **declared))
        task = world.task(world.collect())
    assert (task["status"], task["reason"]) == ("COMPLETED", None)
    assert world.rows("SELECT id FROM landing.things ORDER BY id") == [{"id": 0}, {"id": 1}, {"id": 2}]


def posted(status: str) -> Answering:
    """Answers the first request with a redirect, and a GET with rows that nobody asked for."""

    def answer(asked: Asked) -> bytes:
        if not asked.query:
            return reply("", f"Location: /{asked.path}?moved=1", status=status)
        return reply(rows(0, 3) if asked.method == "POST" and asked.body == b'{"q":1}' else rows(7, 2))

    return answer


POST: dict[str, Any] = {"method": "POST", "body": {"q": 1}}
REDIRECTED: dict[str, Case] = {
    **{
        f"{status}": Case(
            answers=posted(status),
            request=POST,
            status="DEAD",
            ids=(),
            named=("redirected_post",),
            requests=1,
        )
        for status in ("301 Moved", "302 Found", "303 See Other")
    },
    "307": Case(answers=posted("307 Moved"), request=POST),
    "308": Case(answers=posted("308 Moved"), request=POST),
    "repeat": Case(answers=posted("302 Found"), request={**POST, "redirected_post": "repeat"}),
    "get": Case(answers=posted("302 Found"), request={**POST, "redirected_post": "get"}, ids=(7, 8)),
    "a GET": Case(
        answers=lambda asked: (
            reply(rows(0, 3))
            if asked.query
            else reply("", f"Location: /{asked.path}?moved=1", status="302 Found")
        )
    ),
}


def test_a_redirected_post_is_no_get_unless_that_is_declared(world: World) -> None:
    run(world, REDIRECTED)


def test_a_stored_declaration_goes_on_to_follow_a_redirected_post(world: World) -> None:
    with OddServer({"old": posted("302 Found")}) as server:
        world.serve_from(server.base_url)
        declared = {"paging": {"type": "none"}, "total": {"type": "unknown"}, "page_size": None}
        world.add(source(request={"path": "/old", **POST}, **declared))
        assert world.task(world.collect())["status"] == "COMPLETED"
    assert world.rows("SELECT id FROM landing.things ORDER BY id") == [{"id": 7}, {"id": 8}]


def test_a_form_is_sent_as_a_form(world: World) -> None:
    fields = {"q": "a b&c=d/é", "tags": ["x", "y"], "n": 5, "flag": True, "none": None}

    def answer(asked: Asked) -> bytes:
        sent = parse_qsl(asked.body.decode(), keep_blank_values=True)
        page = int(dict(sent)["offset"])
        expected = [("q", "a b&c=d/é"), ("tags", "x"), ("tags", "y"), ("n", "5"), ("flag", "true")]
        if asked.headers["content-type"] != "application/x-www-form-urlencoded" or sent[:5] != expected:
            return reply({"message": f"{asked.headers} {sent}"}, status="400 No")
        return reply(rows(page, max(0, min(2, 3 - page))))

    run(
        world,
        {
            "pages": Case(
                answers=answer,
                request={"method": "POST", "body": fields, "body_type": "form"},
                fields={"paging": {"type": "offset", "location": "body"}, "page_size": 2},
            )
        },
    )


def test_composed_and_decomposed_letters_are_two_requests_and_two_tasks(world: World) -> None:
    with OddServer({"n": lambda asked: reply({"rows": [{"id": len(asked.target), "name": "x"}]})}) as server:
        world.serve_from(server.base_url)
        world.add(
            source(
                request={"path": "/n", "query": {"name": "{name}"}, "params": {"name": {"required": True}}},
                paging={"type": "none"},
                total={"type": "unknown"},
                page_size=None,
            )
        )
        for name in ("Jos\u00e9", "Jose\u0301"):
            assert world.submit(params={"name": name}).duplicate_of is None
        assert world.submit(params={"name": "Jos\u00e9"}).duplicate_of is not None
        while world.claim_and_run():
            pass
        targets = [each.target for each in server.asked["n"]]
    assert sorted(targets) == ["/n?name=Jos%C3%A9", "/n?name=Jose%CC%81"]
