"""Every paging style, authentication and disposition lands exactly the server's rows, end to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.plugins.integration.execution.checks import (
    DISPOSITIONS,
    asides,
    assert_exact,
    offset_of,
    open_things,
    target,
)
from tests.plugins.integration.world import World, source
from tests.servers.paged import Failure, PagedServer, basic, row

Serve = Callable[..., PagedServer]

BODY = {"type": "body", "path": "total"}
STYLES: dict[str, dict[str, Any]] = {
    "/offset": {"paging": {"type": "offset"}, "total": BODY},
    "/page": {"paging": {"type": "page"}, "total": BODY},
    "/cursor": {
        "paging": {"type": "cursor", "cursor": "next_cursor", "limit_param": "limit"},
        "total": {"type": "request", "path": "/count", "value": "count"},
    },
    "/next": {
        "paging": {"type": "next_url", "next_url": "next", "limit_param": "limit"},
        "total": {"type": "unknown"},
    },
    "/link": {
        "paging": {"type": "link_header", "limit_param": "limit"},
        "total": {"type": "header", "name": "X-Total-Count"},
        "records": "@",
    },
    "/single": {"paging": {"type": "none"}, "total": BODY, "page_size": None},
}
SHARDED = ("/offset", "/page")


def paged(path: str, name: str = "things", **changes: Any) -> Mapping[str, Any]:
    """The fields of a source of a style: shards of 30 rows where it can be split, pages of 10."""
    return {
        "name": name,
        "request": {"path": path},
        "batch_size": 30,
        "page_size": 10,
        **STYLES[path],
        **changes,
    }


@pytest.mark.parametrize("path", STYLES)
def test_every_disposition_lands_the_servers_rows(world: World, serve: Serve, path: str) -> None:
    server = serve(rows=95, cap=7, total_header="X-Total-Count", gzip=True)
    world.serve_from(server.base_url)
    for disposition in DISPOSITIONS:
        world.add(source(**paged(path, disposition, target=target(disposition, disposition))))
        task = world.task(world.collect(disposition))
        assert (task["status"], task["reason"]) == ("COMPLETED", None), disposition
        assert_exact(world, 95, disposition, because=disposition)
        assert task["shards_total"] == (4 if path in SHARDED else 1)
        result = task["result"]
        assert (result["rows_fetched"], result["rows_landed"], result["bad_rows"]) == (95, 95, 0)
        assert result["pages"] >= (1 if path == "/single" else 10)
        assert result["total_rows"] == (None if path == "/next" else 95)
    assert asides(world) == []
    assert open_things(world) == 0


@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_a_source_without_columns_lands_documents(world: World, serve: Serve, disposition: str) -> None:
    server = serve(rows=40)
    key = {"key": ["id"]} if disposition == "merge" else {}
    world.add(source(target={"table": "things", "disposition": disposition, **key}))
    world.serve_from(server.base_url)
    assert world.task(world.collect())["status"] == "COMPLETED"
    found = world.rows("SELECT document FROM landing.things ORDER BY (document ->> 'id')::int")
    assert [each["document"] for each in found] == [row(number) for number in range(40)]


def test_shards_ask_for_no_row_twice(world: World, serve: Serve) -> None:
    server = serve(rows=95)
    world.add(source(**paged("/offset")))
    world.serve_from(server.base_url)
    assert world.task(world.collect())["status"] == "COMPLETED"
    probe, *pages = server.requests
    assert probe.query["limit"] == "10"
    assert sorted(map(offset_of, pages)) == list(range(0, 95, 10))


AUTHS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "basic": ({"type": "basic"}, {"required_headers": basic("me", "s3cret-word")}),
    "bearer": ({"type": "bearer"}, {"required_headers": {"Authorization": "Bearer s3cret-word"}}),
    "key in a header": ({"type": "api_key"}, {"required_headers": {"X-Api-Key": "s3cret-word"}}),
    "key in the query": (
        {"type": "api_key", "location": "query", "name": "api_key"},
        {"required_query": {"api_key": "s3cret-word"}, "echo_key": "api_key"},
    ),
}


@pytest.mark.parametrize("kind", AUTHS)
def test_every_authentication_lands_and_its_secret_is_nowhere(world: World, serve: Serve, kind: str) -> None:
    auth, options = AUTHS[kind]
    world.add(source(**paged("/next", auth=auth)))
    world.serve_from(serve(rows=45, **options).base_url, login="me", password="s3cret-word")
    assert world.task(world.collect())["status"] == "COMPLETED"
    assert_exact(world, 45)
    for table in ("task", "shard", "trace", "task_log", "source_version"):
        leaks = world.rows(f"SELECT * FROM collect.{table} AS t WHERE t::text LIKE '%%s3cret-word%%'")
        assert leaks == [], f"collect.{table} holds the secret"


@pytest.mark.parametrize("kind", AUTHS)
def test_a_stopped_stream_keeps_no_secret_in_its_position(world: World, serve: Serve, kind: str) -> None:
    auth, options = AUTHS[kind]
    server = serve(rows=45, **options)
    retries = {"http_attempts": 1, "max_retries": 0}
    world.add(source(**paged("/next", auth=auth, retries=retries)))
    world.serve_from(server.base_url, login="me", password="s3cret-word")
    server.fail_where(lambda request: request.query.get("start") == "20", Failure(status=500))
    task = world.task(world.collect())
    assert task["status"] == "DEAD"
    shard = world.rows("SELECT position, error FROM collect.shard")[0]
    assert shard["position"] is not None
    for table in ("task", "shard", "trace", "dead_letter"):
        assert world.rows(f"SELECT * FROM collect.{table} AS t WHERE t::text LIKE '%%s3cret-word%%'") == []
