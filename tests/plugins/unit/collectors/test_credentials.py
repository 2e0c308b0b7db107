"""Which texts of a connection are secrets, and which are too short to be masked."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from yarl import URL

from collect_ops.collectors.credentials import Credentials, short_secrets
from collect_ops.collectors.endpoint import Endpoint
from tests.factories import source

PASSWORD = "pass/word+of=it"


def credentials(auth: dict[str, Any], **fields: Any) -> Credentials:
    endpoint = Endpoint(**{"base_url": "http://host", "login": "login-of-it", "password": PASSWORD, **fields})
    return Credentials.of(source(auth=auth), endpoint)


@pytest.mark.parametrize("kind", ["none", "basic", "bearer", "oauth2"])
def test_login_password_and_headers_are_secrets_whatever_the_authentication(kind: str) -> None:
    headers = {
        "X-Tenant": "tenant-77",
        "Cookie": "sid=abcdefg; theme=dark-blue",
        "Accept": "application/json",
    }
    found = credentials(
        {"type": kind}, headers=headers, token_url="https://t/x?api_key=key-of-it&v=2024-01-01"
    )
    expected = {"login-of-it", PASSWORD, "tenant-77", "abcdefg", "key-of-it"}
    assert expected <= set(found.secrets)
    assert not {"application/json", "2024-01-01"} & set(found.secrets)


def test_what_is_made_of_them_is_a_secret() -> None:
    pair = base64.b64encode(f"login-of-it:{PASSWORD}".encode()).decode()
    assert {f"Basic {pair}", pair} <= set(credentials({"type": "basic"}).secrets)
    assert {"token-1234567", PASSWORD} <= set(
        credentials({"type": "oauth2"}).bearing("token-1234567").secrets
    )


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("http://host/x?key=1&page=2", "http://host/x?page=2"),
        ("http://u:p@host/x?page=2", "http://host/x?page=2"),
        ("http://host/x?token=pass/word%2Bof%3Dit&page=2", "http://host/x?page=2"),
        ("http://host/x?page=2", "http://host/x?page=2"),
    ],
)
def test_keys_are_taken_out_of_addresses(url: str, stored: str) -> None:
    found = credentials({"type": "api_key", "location": "query", "name": "key"})
    assert str(found.strip(URL(url))) == stored


def test_what_is_to_be_stored_must_not_hold_a_key_but_may_hold_the_login() -> None:
    found = credentials({"type": "basic"})
    assert found.gives_away('{"cursor": "a-pass%2fword%2bof%3dit"}')
    assert not found.gives_away('{"url": "http://host/login-of-it/2"}')
    cookies = credentials({"type": "none"}, headers={"Cookie": "sid=abcdef123456; theme=dark-blue"})
    assert cookies.gives_away('{"cursor": "abcdef123456"}')
    assert not cookies.gives_away('{"url": "http://host/dark-blue"}')


@pytest.mark.parametrize("location", ["header", "query"])
@pytest.mark.parametrize(
    ("password", "found"),
    [
        ("f1ight", True), ("short10chr", True), ("a-b-c-d", True), ("pass word", True), ("a longer one!", True),
        ("flights", False), ("20240101", False), ("f1igh", False),
    ],
)  # fmt: skip
def test_a_short_secret_is_found_unless_others_look_like_it(
    password: str, location: str, *, found: bool
) -> None:
    declared = source(auth={"type": "api_key", "location": location, "name": "X-Key"})
    held = Credentials.of(declared, Endpoint(base_url="http://host", password=password))
    assert held.gives_away(f'{{"cursor": "page2:{password}"}}') is found


@pytest.mark.parametrize(
    ("fields", "warned"),
    [
        ({"password": "x"}, ["password"]),
        ({"password": "12345"}, ["password"]),
        ({"password": "123456"}, ["password"]),
        ({"password": "flights"}, ["password"]),
        ({"password": "flights-of-it"}, []),
        ({"password": "f1ight"}, []),
        ({"headers": {"X-Api-Key": "Token flights"}}, ["extra.headers.X-Api-Key"]),
        ({"headers": {"X-Api-Key": "Token f1ight"}}, []),
        ({"password": None}, []),
        ({"headers": {"X-Api-Key": "abc", "Accept": "a/b"}}, ["extra.headers.X-Api-Key"]),
    ],
)
def test_secrets_that_are_too_short_are_warned_of(fields: dict[str, Any], warned: list[str]) -> None:
    endpoint = Endpoint(**{"base_url": "http://host", "password": PASSWORD, **fields})
    found = list(short_secrets(endpoint, "things_api"))
    assert [warning.split(" ")[0] for warning in found] == warned
    assert all("'things_api'" in warning for warning in found)
