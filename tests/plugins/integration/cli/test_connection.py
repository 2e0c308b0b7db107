"""`collect-ops connection add | test`: what they refuse, and what a request over a connection says."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable

import pytest

from tests.plugins.integration.world import World
from tests.servers.paged import Failure, PagedServer

Run = Callable[..., tuple[int, str, str]]
HOST = ("--host", "https://api.example.com")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("a b", *HOST), "NAME"),
        (("collect_postgres", *HOST), "NAME"),
        (("api", "--host", "ftp://api.example.com"), "--host"),
        (("api", "--host", "https://me:hush-hush@api.example.com"), "--host"),
        (("api", *HOST, "--token-url", "nowhere"), "--token-url"),
        (("api", *HOST, "--password-stdin", "--bearer-stdin"), "--bearer-stdin"),
        (("api", *HOST, "--bearer-stdin", "--login", "me"), "--login"),
        (("api", *HOST, "--ask"), "--ask"),
        (("api", *HOST, "--password-stdin"), "stdin"),
    ],
)
def test_bad_input(
    world: World, collect_ops: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], named: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    code, out, err = collect_ops("connection", "add", *arguments)
    assert (code, out) == (2, "")
    assert named in err
    assert "hush-hush" not in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("a b",), "NAME"),
        (("api", "--path", "no-slash"), "--path"),
        (("api", "--path", "/x?y=1"), "--path"),
        (("api", "--source", "example_page"), "--source"),
        (("api", "--source", "no_such_source"), "no_such_source"),
    ],
)
def test_bad_input_of_a_test(world: World, collect_ops: Run, arguments: tuple[str, ...], named: str) -> None:
    code, out, err = collect_ops("connection", "test", *arguments)
    assert (code, out) == (2, "")
    assert named in err


@pytest.fixture
def tried(
    collect_ops: Run, monkeypatch: pytest.MonkeyPatch, world: World
) -> Callable[..., tuple[int, dict[str, object]]]:
    def run(host: str, *arguments: str, password: str = "hush-hush") -> tuple[int, dict[str, object]]:
        connection = {
            "host": host,
            "login": "me",
            "password": password,
            "extra": {"allow_private_networks": True},
        }
        monkeypatch.setenv("AIRFLOW_CONN_EXAMPLE_API", json.dumps(connection))
        code, out, err = collect_ops("connection", "test", "example_api", *arguments, "--json")
        assert password not in out + err
        found: dict[str, object] = json.loads(out)
        return code, found

    return run


Tried = Callable[..., tuple[int, dict[str, object]]]


def test_somebody_answers(tried: Tried) -> None:
    with PagedServer(rows=3) as server:
        code, found = tried(server.base_url, "--source", "example_offset")
        assert (code, found["ok"], found["source"]) == (0, True, "example_offset")
        # A path that is not there: there is somebody, who lets us in.
        code, found = tried(server.base_url, "--path", "/nothing/here")
        assert (code, found["ok"]) == (0, True)
        server.fail_next("/single", Failure(status=503))
        code, found = tried(server.base_url, "--path", "/single")
        assert (code, found["ok"]) == (1, False)


def test_the_source_says_how_to_authenticate(tried: Tried) -> None:
    with PagedServer(rows=3, required_headers={"Authorization": "Bearer hush-hush"}) as server:
        code, found = tried(server.base_url, "--source", "example_cursor")
        assert (code, found["auth"]) == (0, "bearer")
        code, found = tried(server.base_url, "--source", "example_cursor", password="another-one")
        assert (code, found["ok"]) == (1, False)


def test_nobody_answers(tried: Tried) -> None:
    code, found = tried("http://127.0.0.1:9")
    assert (code, found["ok"]) == (1, False)
