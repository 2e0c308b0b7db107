"""Addresses as servers write them: spelled as they are, and corrected where a proxy is not known."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from collect_ops.collectors.credentials import Credentials
from collect_ops.collectors.proxied import as_reached
from collect_ops.collectors.urls import parse_url

LEGAL = st.text(alphabet="abZ09-._~!$'()*,:@/=&+|[]", max_size=20)
ESCAPE = st.sampled_from(["%2F", "%2f", "%7E", "%20", "%C3%A9", "%25", "%3D", "%26", "%2B"])
SPELLED = st.lists(LEGAL | ESCAPE, max_size=6).map("".join)


@given(path=SPELLED.map(lambda text: text.replace("..", "").replace("./", "")), query=SPELLED)
def test_path_and_query_stay_as_they_are_spelled(path: str, query: str) -> None:
    path = f"/x{path}x"
    text = f"https://api.example.com{path}?sig={query}"
    url = parse_url(text)
    assert str(url) == text
    assert url.raw_path_qs == f"{path}?sig={query}"
    assert str(parse_url(str(url))) == text
    assert str(parse_url("https://api.example.com/other").join(parse_url(f"{path}?sig={query}"))) == text
    assert str(parse_url(f"{text}#part")) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://H.example.com:443/a", "https://h.example.com/a"),
        ("http://h:80/a", "http://h/a"),
        ("http://h:443/a", "http://h:443/a"),
        ("https://h/a b?q=é#x", "https://h/a%20b?q=%C3%A9"),
        ("https://h/100%?q=5%", "https://h/100%25?q=5%25"),
        ("https://h/a\\b?q=<\"'>\r\n", "https://h/a%5Cb?q=%3C%22'%3E"),
        ("https://h/a/../b?x=%2F", "https://h/b?x=%2F"),
        ("https://h", "https://h/"),
        ("//h/x?p=%2F", "//h/x?p=%2F"),
        ("?page=2", "?page=2"),
    ],
)
def test_what_must_not_stand_in_an_address_is_encoded(text: str, expected: str) -> None:
    assert str(parse_url(text)).removesuffix("%0D%0A") == expected


@pytest.mark.parametrize("text", ["http://[]@/", "http://h:99999/", "/x?\ud800", "http://\ud800/"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_url(text)


@given(pairs=st.lists(st.tuples(st.sampled_from(["a", "sig", "page", "api_key"]), SPELLED), max_size=5))
def test_only_our_key_goes_out_of_a_link(pairs: list[tuple[str, str]]) -> None:
    credentials = Credentials(origin=URL("https://h"), query={"api_key": "s3cret"}, keys=("s3cret",))
    pairs = [(name, value.replace("&", "")) for name, value in pairs]
    query = "&".join(f"{name}={value}" for name, value in pairs)
    kept = [
        f"{name}={value}"
        for name, value in pairs
        if name != "api_key" and unquote(value.replace("+", " ")) != "s3cret"
    ]
    bare = credentials.strip(parse_url(f"https://h/x?{query}"))
    assert bare.raw_query_string == "&".join(kept)
    assert credentials.dress(bare).raw_query_string == "&".join([*kept, "api_key=s3cret"])


def test_the_port_of_a_scheme_makes_no_other_place() -> None:
    for base in ("https://h:443/v1", "https://h/v1"):
        credentials = Credentials(origin=URL(base).origin())
        assert credentials.trusts(URL("https://h:443/x"))
        assert credentials.trusts(URL("https://h/x"))
        assert not credentials.trusts(URL("http://h/x"))
        assert not credentials.trusts(URL("https://h:8443/x"))
        assert not credentials.trusts(URL("https://other/x"))


@pytest.mark.parametrize(
    ("base", "path", "link", "expected"),
    [
        ("https://h/v1", "/items", "http://h/v1/items?p=%2F", "https://h/v1/items?p=%2F"),
        ("https://h/v1", "/items", "http://h:443/v1/items", "https://h/v1/items"),
        ("https://h:8443/v1", "/items", "http://h:8443/v1/items", "https://h:8443/v1/items"),
        ("https://h:8443/v1", "/items", "http://h/v1/items", "https://h:8443/v1/items"),
        ("https://h/v1", "/items", "http://h:8080/v1/items", "http://h:8080/v1/items"),
        ("https://h/v1", "/items", "http://elsewhere/v1/items", "http://elsewhere/v1/items"),
        ("http://h/v1", "/items", "https://h/v1/items", "https://h/v1/items"),
        ("https://[::1]/v1", "/items", "http://[::1]/v1/items", "https://[::1]/v1/items"),
        ("https://h/gate/v1", "/items", "https://h/items?page=2", "https://h/gate/v1/items?page=2"),
        ("https://h/gate/v1/", "/items", "http://h/items?page=2", "https://h/gate/v1/items?page=2"),
        ("https://h/gate", "/items/", "https://h/items?page=2", "https://h/gate/items?page=2"),
        ("https://h/gate", "/items", "https://h/items/page/2", "https://h/gate/items/page/2"),
        ("https://h/gate", "/a%20b", "https://h/a%20b?page=2", "https://h/gate/a%20b?page=2"),
        ("https://h/gate", "/", "https://h/?page=2", "https://h/gate/?page=2"),
        ("https://h/gate", "/", "https://h/other?page=2", "https://h/other?page=2"),
        ("https://h/gate", "/items", "https://h/gate/items?page=2", "https://h/gate/items?page=2"),
        ("https://h/gate", "/items", "https://h/gateway/items", "https://h/gateway/items"),
        ("https://h/gate", "/items", "https://h/itemsets?page=2", "https://h/itemsets?page=2"),
        ("https://h", "/items", "https://h/items?page=2", "https://h/items?page=2"),
    ],
)
def test_a_server_that_does_not_know_its_proxy_is_corrected(
    base: str, path: str, link: str, expected: str
) -> None:
    reached = as_reached(parse_url(link), base=parse_url(base), path=path)
    assert str(reached) == expected
    assert as_reached(reached, base=parse_url(base), path=path) == reached
