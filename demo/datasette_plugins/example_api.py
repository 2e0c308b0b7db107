"""A Datasette plugin: the API from which the sources `include/sources/example_*.yaml` collect.

Two thousand readings, an hour apart, below `/examples`: one path for each way of paging and of signing in. An API of
your own is unlikely to look like all of them, but probably looks like one.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from datasette import hookimpl  # type: ignore[import-not-found, unused-ignore]
from datasette.utils.asgi import Response  # type: ignore[import-not-found, unused-ignore]

PREFIX: Final = "/examples"
ROWS: Final = 2000
DEFAULT_PAGE_ROWS: Final = 100
MAX_PAGE_ROWS: Final = 1000
FIRST_READING: Final = datetime(2024, 1, 1, tzinfo=UTC)
STATIONS: Final = ("north", "south")

Row = dict[str, Any]
Query = Mapping[str, str]


class BadRequest(Exception):
    """The request holds something that the API does not understand."""


def reading(number: int) -> Row:
    """Reading `number`, always the same."""
    return {
        "id": number,
        "name": f"reading {number}",
        "value": (number * 37 % 400 - 100) / 10,
        "even": number % 2 == 0,
        "at": f"{FIRST_READING + timedelta(hours=number):%Y-%m-%dT%H:%M:%SZ}",
    }


READINGS: Final = [reading(number) for number in range(ROWS)]


def page_of(rows: Sequence[Row], first: int, size: int) -> Sequence[Row]:
    """Rows `first` to `first + size`, no more than a page may have."""
    return rows[first : first + min(size, MAX_PAGE_ROWS)]


def number(values: Mapping[str, Any], name: str, default: int) -> int:
    """A number that the request names.

    Raises:
        BadRequest: it is none, or less than 0.
    """
    text = values.get(name, default)
    try:
        value = int(text)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"{name} must be a number (got {text!r})") from error
    if value < 0:
        raise BadRequest(f"{name} must not be less than 0 (got {value})")
    return value


def taken_since(query: Query) -> list[Row]:
    """The readings from the moment `since` on; all of them without.

    Raises:
        BadRequest: it is no moment with an offset.
    """
    text = query.get("since")
    if text is None:
        return READINGS
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadRequest(f"since must be a date and time (got {text!r})") from error
    if moment.tzinfo is None:
        raise BadRequest(f"since must have an offset (got {text!r})")
    first = max(0, -((FIRST_READING - moment) // timedelta(hours=1)))
    return READINGS[first:]


def by_offset(query: Query, _: Mapping[str, Any]) -> Response:
    """`/offset`: `offset` and `limit`."""
    rows = taken_since(query)
    page = page_of(rows, number(query, "offset", 0), number(query, "limit", DEFAULT_PAGE_ROWS))
    return answer({"rows": page, "total": len(rows)})


def by_page(query: Query, _: Mapping[str, Any]) -> Response:
    """`/page`: `page`, from 1, and `size`."""
    size = number(query, "size", DEFAULT_PAGE_ROWS)
    return answer({"rows": page_of(READINGS, (number(query, "page", 1) - 1) * size, size)})


def count(_query: Query, _body: Mapping[str, Any]) -> Response:
    """`/count`: how many there are."""
    return answer({"count": len(READINGS)})


def by_cursor(_: Query, body: Mapping[str, Any]) -> Response:
    """`/cursor`: POST with `filter`, `cursor` and `limit` in the body."""
    chosen = body.get("filter") or {}
    rows = [each for each in READINGS if chosen.get("even") in (None, each["even"])]
    first = number({"cursor": str(body.get("cursor") or "from-0").removeprefix("from-")}, "cursor", 0)
    page = page_of(rows, first, number(body, "limit", DEFAULT_PAGE_ROWS))
    following = first + len(page)
    cursor = f"from-{following}" if following < len(rows) else None
    return answer({"rows": page, "total": len(rows), "next_cursor": cursor})


def linked(path: str, query: Query) -> tuple[Sequence[Row], str | None]:
    """A page, and the address of the next one."""
    first, limit = number(query, "start", 0), number(query, "limit", DEFAULT_PAGE_ROWS)
    page = page_of(READINGS, first, limit)
    following = first + len(page)
    more = page and following < len(READINGS)
    return page, f"{PREFIX}{path}?start={following}&limit={limit}" if more else None


def by_next_url(query: Query, _: Mapping[str, Any]) -> Response:
    """`/next`: the next page's address in the body."""
    page, following = linked("/next", query)
    return answer({"rows": page, "next": following})


def by_link_header(query: Query, _: Mapping[str, Any]) -> Response:
    """`/link`: the next page's address in the Link header, the body being the list."""
    page, following = linked("/link", query)
    headers = {"X-Total-Count": str(len(READINGS))}
    if following:
        headers["Link"] = f'<{following}>; rel="next"'
    return answer(page, headers=headers)


def single(_query: Query, _body: Mapping[str, Any]) -> Response:
    """`/single`: all of them at once."""
    return answer({"rows": READINGS, "total": len(READINGS)})


def by_ids(query: Query, _: Mapping[str, Any]) -> Response:
    """`/select`: the readings of `ids`, a list with commas; all of them without."""
    rows = READINGS
    if ids := query.get("ids"):
        chosen = sorted({number({"ids": text}, "ids", 0) for text in ids.split(",")})
        rows = [READINGS[each] for each in chosen if each < len(READINGS)]
    return answer({"rows": rows, "matching": len(rows)})


def of_station(query: Query, _: Mapping[str, Any]) -> Response:
    """`/stations`: the readings of one `station`, as nested records; `offset` and `limit`."""
    station = query.get("station", STATIONS[0])
    if station not in STATIONS:
        raise BadRequest(f"station must be one of {', '.join(STATIONS)} (got {station!r})")
    rows = [
        {"id": each["id"], "measures": {"temperature": each["value"]}, "taken_at": each["at"]}
        for each in READINGS
        if each["even"] == (station == STATIONS[0])
    ]
    page = page_of(rows, number(query, "offset", 0), number(query, "limit", DEFAULT_PAGE_ROWS))
    return answer({"data": {"items": page, "count": len(rows)}})


def anybody(_: Any, __: Mapping[str, str]) -> str | None:
    """No signing in."""
    return ""


def basic(request: Any, _: Mapping[str, str]) -> str | None:
    """The password of basic authentication for the login `reader`."""
    scheme, _blank, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        login, _colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return None
    return password if login == "reader" else None


def bearer(request: Any, _: Mapping[str, str]) -> str | None:
    """The bearer token."""
    scheme, _blank, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else None


def key_in_header(request: Any, _: Mapping[str, str]) -> str | None:
    """The API key in a header."""
    key: str | None = request.headers.get("x-api-key")
    return key


def key_in_query(_: Any, query: Mapping[str, str]) -> str | None:
    """The API key in the query."""
    return query.get("api_key")


Reply = Callable[[Query, Mapping[str, Any]], Response]
Secret = Callable[[Any, Mapping[str, str]], str | None]
#: By path: who answers, and where a request carries its secret.
PATHS: Final[Mapping[str, tuple[Reply, Secret]]] = {
    "offset": (by_offset, anybody),
    "page": (by_page, basic),
    "count": (count, basic),
    "cursor": (by_cursor, bearer),
    "next": (by_next_url, key_in_query),
    "link": (by_link_header, key_in_header),
    "single": (single, anybody),
    "select": (by_ids, anybody),
    "stations": (of_station, anybody),
}


def answer(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON."""
    return Response(
        orjson.dumps(content).decode(),
        status=status,
        headers=dict(headers or {}),
        content_type="application/json; charset=utf-8",
    )


def as_object(content: bytes) -> dict[str, Any]:
    """A request's body.

    Raises:
        BadRequest: it is no JSON object.
    """
    try:
        body = orjson.loads(content or b"{}")
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return body


async def serve(datasette: Any, request: Any) -> Response:
    """Answer a request below `/examples`."""
    found = PATHS.get(request.url_vars["path"])
    if found is None:
        return answer({"error": f"no such path; there are {', '.join(PATHS)}"}, status=404)
    reply, secret_of = found
    query = {name: request.args[name] for name in request.args}
    secret = secret_of(request, query)
    password = (datasette.plugin_config("example_api") or {})["password"].strip()
    if secret_of is not anybody and not hmac.compare_digest((secret or "").encode(), password.encode()):
        return answer({"error": "who are you?"}, status=401)
    try:
        body = as_object(await request.post_body() if request.method == "POST" else b"")
        return reply(query, body)
    except BadRequest as error:
        return answer({"error": str(error)}, status=400)


@hookimpl  # type: ignore[untyped-decorator, unused-ignore]
def register_routes() -> list[tuple[str, Any]]:
    """What is served."""
    return [(rf"^{PREFIX}/(?P<path>[a-z]+)$", serve)]


@hookimpl  # type: ignore[untyped-decorator, unused-ignore]
def skip_csrf(scope: Mapping[str, Any]) -> bool:
    """No browser's form posts to these paths."""
    return str(scope["path"]).startswith(f"{PREFIX}/")
