"""Which texts will do where: paths, header names and values, expressions, schedules, column types. Pure.

Each `..._problem` returns half a sentence saying what is wrong, or None.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from functools import cache
from urllib.parse import unquote, unquote_to_bytes, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter  # type: ignore[import-untyped]

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 section 5.6.2
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_ENTRY_POINT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

# What the HTTP client must write itself, or what carries a secret that belongs in the Airflow connection.
_CLIENT_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "accept-encoding",
    }
)
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})

#: As Airflow reads them.
SCHEDULE_PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
}

_PLAIN_TYPES = (
    "text",
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "real",
    "double precision",
    "numeric",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "interval",
    "uuid",
    "jsonb",
)
COLUMN_TYPES = (*_PLAIN_TYPES, "numeric(p)", "numeric(p,s)", "varchar", "varchar(n)")
#: Types whose values are moments, days or times of day.
TIME_TYPES = frozenset({"date", "time", "timestamp", "timestamptz"})
TIME_FORMATS = ("iso", "epoch_s", "epoch_ms", "epoch_us", "postgresql")
_SYNONYMS = {
    "bool": "boolean",
    "int2": "smallint",
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "float": "double precision",
    "decimal": "numeric",
    "string": "text",
    "character varying": "varchar",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "time without time zone": "time",
}
_MAX_SCHEDULE = 200
_ANY_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_SIZED = re.compile(r"(numeric|varchar) ?\( ?([0-9]{1,8}) ?(?:, ?([0-9]{1,4}) ?)?\)")
_MAX_PRECISION = 1000
_MAX_LENGTH = 10_485_760


def has_control_characters(text: str) -> bool:
    """Whether a text holds line breaks, NUL, other control characters or lone surrogates."""
    return _UNPRINTABLE.search(text) is not None


def path_problem(path: str) -> str | None:
    """Why a path (or a template of one) cannot stand below a connection's base URL."""
    if _SCHEME.match(path) or path.startswith("//"):
        return "must be relative to the connection's base URL: no scheme, no host"
    if "?" in path or "#" in path:
        return "must be a path only: query parameters go into request.query"
    if "\\" in path or " " in path or has_control_characters(path):
        return "must not hold backslashes, spaces or control characters"
    if _BAD_ESCAPE.search(path):
        return "holds a % that is not an escape such as %20"
    if {".", ".."} & set(re.split(r"[/\\]", unquote(path))):
        return "must not hold the segments . or .."
    return None


def climbing_problem(path: str) -> str | None:
    """Why some server on the way might take a path for one that leads out of the base URL.

    Servers and proxies decode once or twice, cut a segment at its first `;` (`..;/`), at a `?` or `#` that they decode
    themselves, and take overlong UTF-8, `%u002e`
    and letters that look like dots and slashes for them. A path is refused when any of them would see a `.` or `..`.
    """
    text = path
    for _ in range(_MAX_DECODINGS):
        if any(_is_dots(segment) for segment in _SLASHES.split(text)):
            return "must not hold the segments . or .., in whatever spelling"
        decoded = _decoded(text)
        if decoded == text:
            return None
        text = decoded
    return f"is encoded more than {_MAX_DECODINGS} times over"


#: How often a path may be encoded. Twice happens by mistake.
_MAX_DECODINGS = 5
_SLASHES = re.compile(r"[/\\]")
_SEGMENT_ENDS = re.compile(r"[;?#]")
# The beginnings of UTF-8 that is longer than need be, of one ASCII character: C0 AE, E0 80 AE, F0 80 80 AE.
_OVERLONG = re.compile(rb"(?:[\xc0\xc1]|\xe0[\x80\x81]|\xf0\x80[\x80\x81])[\x80-\xbf]")
_U_ESCAPE = re.compile(rb"%u([0-9a-fA-F]{4})")


def _is_dots(segment: str) -> bool:
    name = _SEGMENT_ENDS.split(segment, maxsplit=1)[0]
    return "".join(one for one in name if one > " " and one != "\x7f") in (".", "..")


def _decoded(text: str) -> str:
    """A text with its escapes undone once, as the most generous server would."""
    raw = unquote_to_bytes(text.encode("utf-8", "surrogatepass"))
    raw = _OVERLONG.sub(lambda found: bytes([_last_character(found[0])]), raw)
    raw = _U_ESCAPE.sub(lambda found: chr(int(found[1], 16)).encode("utf-8", "surrogatepass"), raw)
    return unicodedata.normalize("NFKC", raw.decode("utf-8", "replace"))


def _last_character(overlong: bytes) -> int:
    return (overlong[-2] & 0x01) << 6 | overlong[-1] & 0x3F


def token_url_problem(text: str) -> str | None:
    """Why a text cannot be the address of a token endpoint: a URL, or a path on the connection's own host."""
    if "\\" in text or " " in text or has_control_characters(text):
        return "must not hold backslashes, spaces or control characters"
    if "#" in text:
        return "must not hold a fragment (RFC 6749 section 3.2)"
    if text.startswith("/") and not text.startswith("//"):
        return None
    try:
        url = urlsplit(text)
        named = url.scheme in ("http", "https") and bool(url.hostname)
    except ValueError as error:
        return f"is not a URL: {error}"
    if "@" in url.netloc:
        return "must not hold credentials: client id and secret are the connection's login and password"
    return None if named else "must be https://host/path, or a path (/oauth/token) on the connection's host"


def header_name_problem(name: str) -> str | None:
    """Why a request header cannot be declared."""
    if not _TOKEN.fullmatch(name):
        return "is not a header name: letters, digits and - only"
    if name.lower() in _SECRET_HEADERS:
        return "carries a secret: use auth, the secret itself belongs in the Airflow connection"
    if name.lower() in _CLIENT_HEADERS:
        return "is written by the HTTP client itself"
    return None


@cache
def schedule_problem(schedule: str) -> str | None:
    """Why a text is not a schedule that Airflow takes."""
    if schedule in SCHEDULE_PRESETS:
        return None
    wanted = f"must be five cron fields such as '0 * * * *', or one of {', '.join(SCHEDULE_PRESETS)}"
    if schedule.startswith("@") or len(schedule.split()) != 5:
        return wanted
    return None if croniter.is_valid(schedule) else wanted


@cache
def timezone_problem(name: str) -> str | None:
    """Why a text is not the name of a time zone."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return "must be the name of a time zone, such as Europe/Berlin or UTC"
    return None


@cache
def schedule_never_problem(schedule: str) -> str | None:
    """Why a schedule that Airflow takes would start nothing (30 February), or starts anew whenever it is read."""
    if schedule in SCHEDULE_PRESETS:
        return None
    if len(schedule) > _MAX_SCHEDULE:
        return f"must have at most {_MAX_SCHEDULE} characters, has {len(schedule)}"
    try:
        following = croniter(schedule, _ANY_DAY)
        following.get_next(datetime)
        following.get_prev(datetime)
    except (ValueError, KeyError, OverflowError) as error:
        return f"names no moment that comes: {error}"
    # croniter's own: R is drawn anew by each process that reads it, H needs a name.
    return "must not be random (R, H)" if re.search("(?<![a-z])[rh](?![a-z])", schedule.lower()) else None


def column_type(text: str) -> str | None:
    """The canonical spelling of a PostgreSQL type that columns may have, or None."""
    name = " ".join(text.lower().split())
    base, bracket, rest = name.partition("(")
    name = _SYNONYMS.get(base.strip(), base.strip()) + bracket + rest
    if name in _PLAIN_TYPES or name == "varchar":
        return name
    sized = _SIZED.fullmatch(name)
    return _sized_type(sized) if sized else None


def _sized_type(sized: re.Match[str]) -> str | None:
    size, scale = int(sized[2]), sized[3]
    if sized[1] == "varchar":
        return f"varchar({size})" if scale is None and 1 <= size <= _MAX_LENGTH else None
    if not 1 <= size <= _MAX_PRECISION:
        return None
    if scale is None:
        return f"numeric({size})"
    return f"numeric({size},{int(scale)})" if int(scale) <= size else None


@cache
def time_format_problem(text: str) -> str | None:
    """Why a text does not say how times are spelled."""
    if text in TIME_FORMATS:
        return None
    if "%" not in text:
        return f"must be one of {', '.join(TIME_FORMATS)}, or a pattern of strptime such as %d/%m/%Y"
    try:
        datetime.strptime(_ANY_DAY.strftime(text), text)  # noqa: DTZ007 - only whether it can be read
    except (ValueError, re.error) as error:  # re.error: a directive that stands in it twice
        return f"is no pattern of strptime: {error}"
    return None


@cache
def entry_point_problem(text: str) -> str | None:
    """What keeps a text from naming a Python function; whether there is one is not asked."""
    if _ENTRY_POINT.fullmatch(text) is None:
        return "must be package.module:function"
    return None
