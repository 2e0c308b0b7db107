"""A source: a declared thing to collect from (`include/sources/NAME.yaml`)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from collect_ops.sources.declaration import (
    Declaration,
    Identifier,
    InFiles,
    Name,
    Scalar,
    Since,
    demand,
    misfit,
    misfits,
    reads_stored,
)
from collect_ops.sources.expressions import expression_problem
from collect_ops.sources.params import Param, ParamType
from collect_ops.sources.priority_formula import PriorityFormula
from collect_ops.sources.texts import (
    COLUMN_TYPES,
    TIME_TYPES,
    column_type,
    entry_point_problem,
    has_control_characters,
    header_name_problem,
    path_problem,
    schedule_problem,
    time_format_problem,
    timezone_problem,
    token_url_problem,
)
from collect_ops.sources.window import duration_problem

__all__ = [
    "ApiName",
    "AskedRange",
    "Auth",
    "AuthType",
    "BodyTotal",
    "Column",
    "Conditional",
    "CountShards",
    "CursorPaging",
    "DateWindowShards",
    "Declaration",
    "Dedup",
    "Disposition",
    "EntryPointShards",
    "HeaderTotal",
    "Identifier",
    "KeyRangeShards",
    "Limits",
    "LinkHeaderPaging",
    "Merge",
    "MergeList",
    "MergeRange",
    "Name",
    "NextUrlPaging",
    "NoPaging",
    "OffsetPaging",
    "PagePaging",
    "Paging",
    "Param",
    "ParamType",
    "Request",
    "RequestTotal",
    "Retries",
    "RetryWhen",
    "Scalar",
    "Shards",
    "Source",
    "Target",
    "Timeouts",
    "Total",
    "UnknownTotal",
    "ValuesShards",
    "When",
]


def _one_line_problem(value: str) -> str | None:
    if has_control_characters(value):
        return "must not hold line breaks or other control characters"
    return None


def _column_type(value: str, info: ValidationInfo) -> str:
    canonical = column_type(value)
    if canonical is None and not reads_stored(info):
        raise misfit("is not a type that columns may have", allowed=COLUMN_TYPES)
    return canonical or value


_OneLine = demand(_one_line_problem)
Path = Annotated[str, demand(path_problem)]
Expression = Annotated[str, Field(min_length=1), demand(expression_problem)]
HeaderName = Annotated[str, demand(header_name_problem)]
HeaderValue = Annotated[str, _OneLine]
TokenUrl = Annotated[str, demand(token_url_problem)]
Schedule = Annotated[str, demand(schedule_problem)]
Timezone = Annotated[str, Field(max_length=100), demand(timezone_problem)]
ColumnType = Annotated[str, AfterValidator(_column_type)]
Duration = Annotated[str, demand(duration_problem)]
EntryPointName = Annotated[str, Field(max_length=300), demand(entry_point_problem)]
# The name of a query parameter, of a top-level field of a body, or of a header, as the API spells it.
ApiName = Annotated[str, Field(min_length=1, max_length=200), _OneLine]
ConnectionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$")]
# The name of the table that a replacing task lands in is TABLE__TASK_ID: 63 less "__" and 19 digits.
TableName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,41}$")]


class AuthType(StrEnum):
    """How a request proves who asks; the secret itself is the Airflow connection's."""

    NONE = "none"
    BASIC = "basic"
    BEARER = "bearer"
    API_KEY = "api_key"
    OAUTH2 = "oauth2"


class Auth(Declaration):
    """Authentication.

    `basic` uses the connection's login and password, `oauth2` both as client id and secret, the others the password.
    """

    type: AuthType = AuthType.NONE
    """How a request proves who asks."""
    location: Literal["header", "query"] = "header"
    """For api_key: where the key goes."""
    name: ApiName = "X-Api-Key"
    """For api_key: the header or query parameter that carries it."""
    token_url: TokenUrl | None = None
    """For oauth2: where tokens are given out, a path or URL on the connection's scheme, host and port; one that lies
    elsewhere belongs into the connection's extra."""
    scope: Annotated[str, _OneLine] | None = None
    """For oauth2: what the token is for, words separated by blanks."""
    audience: Annotated[str, _OneLine] | None = None
    """For oauth2: whom the token is for, where the server asks for it."""
    client_auth: Literal["basic", "body"] = "basic"
    """For oauth2: whether client id and secret go into a header or into the token request's body."""


def _refuses_when_posting(request: Any) -> str | None:
    return "refuse" if request.method == "POST" else None


RedirectedPost = Annotated[
    Literal["get", "repeat", "refuse"],
    Since(format=3),
    InFiles(
        value=_refuses_when_posting,
        before="a POST that was answered 301, 302 or 303 was followed by a GET without its body",
        keep="get",
    ),
]


class Request(Declaration):
    """The request of one page, before paging adds its own parameters."""

    method: Literal["GET", "POST"] = "GET"
    """The HTTP method."""
    path: Path = "/"
    """Below the connection's base URL; may hold `{param}`."""
    query: dict[ApiName, Scalar | list[Scalar]] = Field(default_factory=dict)
    """Query parameters; texts may hold `{param}`, a list gives the parameter several times."""
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Request headers; values may hold `{param}`. Secrets belong in the connection."""
    body: Any = None
    """The body of a POST; a text that is nothing but `{param}` becomes the value with its type."""
    body_type: Annotated[Literal["json", "form"], Since(format=3)] = "json"
    """How the body is written: as JSON, or as a form (application/x-www-form-urlencoded)."""
    redirected_post: RedirectedPost = "get"
    """After 301, 302 or 303 to a POST: a GET without its body (get), the POST again (repeat), or an error (refuse)."""
    params: dict[Identifier, Param] = Field(default_factory=dict)
    """What a submission may set."""


EqualPages = Annotated[
    Literal["allow", "refuse", "end"],
    Since(format=3),
    InFiles(value="refuse", before="a page with the rows of an earlier one landed again", keep="allow"),
]


def body_names_in_files(paging: BaseModel) -> str | None:
    """Only where it makes a difference: a name with a dot that goes into a body."""
    names = (getattr(paging, field, None) for field in PAGING_PARAMS)
    in_body = getattr(paging, "location", "query") == "body"
    return "nested" if in_body and any("." in name for name in names if name) else None


BodyNames = Annotated[
    Literal["flat", "nested"],
    Since(format=3),
    InFiles(
        value=body_names_in_files, before="a dot in a parameter's name stood in the body's key", keep="flat"
    ),
]
AdvanceBy = Annotated[Literal["rows", "page_size"], Since(format=3)]
#: The fields of a paging style that name parameters of its requests.
PAGING_PARAMS: Final = ("offset_param", "page_param", "cursor_param", "limit_param", "size_param")


class OffsetPaging(Declaration):
    """`offset` and `limit`: can be split by arithmetic."""

    type: Literal["offset"]
    """Pages are asked for by offset and limit."""
    offset_param: ApiName = "offset"
    """The parameter that says how many rows to skip."""
    limit_param: Annotated[ApiName | None, Since(format=3, values=(None,))] = "limit"
    """The parameter that says how many rows to give; null: the server decides."""
    first_offset: Annotated[int, Field(ge=0), Since(format=3)] = 0
    """The first row's offset: 1 where the server counts from 1, as SCIM's startIndex does."""
    advance_by: AdvanceBy = "rows"
    """The next offset is behind the rows that came (rows), or behind the rows that were asked for (page_size): for
    servers that leave rows out of their pages, such as those that the caller may not see."""
    location: Literal["query", "body"] = "query"
    """Where both parameters go."""
    body_names: BodyNames = "flat"
    """In a body, whether `page.offset` is a key (flat), or the field `offset` of the object `page` (nested)."""
    equal_pages: EqualPages = "allow"
    """Whether a page with the rows of an earlier one fails the task (refuse), or lands (allow); with end, one with the
    rows of the page just before it says that there are no more."""


class PagePaging(Declaration):
    """Page number and page size: can be split by arithmetic."""

    type: Literal["page"]
    """Pages are asked for by number and size."""
    page_param: ApiName = "page"
    """The parameter that carries the page's number."""
    size_param: Annotated[ApiName | None, Since(format=3, values=(None,))] = "size"
    """The parameter that says how many rows a page has; null: the server decides."""
    first_page: int = Field(default=1, ge=0)
    """The first page's number."""
    advance_by: AdvanceBy = "rows"
    """Whether a page that is shorter than asked for tells the server's page size (rows), or lacks rows (page_size): for
    servers that leave rows out of their pages, such as those that the caller may not see."""
    location: Literal["query", "body"] = "query"
    """Where both parameters go."""
    body_names: BodyNames = "flat"
    """In a body, whether `page.number` is a key (flat), or the field `number` of the object `page` (nested)."""
    equal_pages: EqualPages = "allow"
    """Whether a page with the rows of an earlier one fails the task (refuse), or lands (allow); with end, one with the
    rows of the page just before it says that there are no more."""


class CursorPaging(Declaration):
    """A token in the body that asks for the next page."""

    type: Literal["cursor"]
    """Each page's body holds the token of the next."""
    cursor: Expression
    """JMESPath of the token; null, missing or empty on the last page."""
    cursor_param: ApiName = "cursor"
    """The parameter that carries the token."""
    limit_param: ApiName | None = None
    """The parameter that says how many rows to give, when there is one."""
    location: Literal["query", "body"] = "query"
    """Where the parameters go."""
    body_names: BodyNames = "flat"
    """In a body, whether `variables.after` is a key (flat), or the field `after` of the object `variables` (nested)."""
    equal_pages: EqualPages = "allow"
    """Whether a page with the rows of an earlier one fails the task (refuse), or lands (allow); with end, one with the
    rows of the page just before it says that there are no more."""


class NextUrlPaging(Declaration):
    """The next page's address (absolute or relative) in the body."""

    type: Literal["next_url"]
    """Each page's body holds the address of the next."""
    next_url: Expression
    """JMESPath of the address; null, missing or empty on the last page."""
    limit_param: ApiName | None = None
    """The query parameter that says how many rows to give, when there is one."""
    equal_pages: EqualPages = "allow"
    """Whether a page with the rows of an earlier one fails the task (refuse), or lands (allow); with end, one with the
    rows of the page just before it says that there are no more."""


class LinkHeaderPaging(Declaration):
    """The next page's address in the `Link` header, `rel="next"` (RFC 8288)."""

    type: Literal["link_header"]
    """Each page's Link header holds the address of the next."""
    limit_param: ApiName | None = None
    """The query parameter that says how many rows to give, when there is one."""
    equal_pages: EqualPages = "allow"
    """Whether a page with the rows of an earlier one fails the task (refuse), or lands (allow); with end, one with the
    rows of the page just before it says that there are no more."""


class NoPaging(Declaration):
    """One response holds everything."""

    type: Literal["none"] = "none"
    """One response holds everything."""


Paging = Annotated[
    OffsetPaging | PagePaging | CursorPaging | NextUrlPaging | LinkHeaderPaging | NoPaging,
    Field(discriminator="type"),
]


AtLeast = Annotated[bool, Since(format=3)]
CappedAt = Annotated[int | None, Field(ge=1), Since(format=3)]


class BodyTotal(Declaration):
    """The total stands in each page's body, at a JMESPath."""

    type: Literal["body"]
    """The total stands in each page's body."""
    path: Expression
    """JMESPath of the total."""
    at_least: AtLeast = False
    """Whether there may be more rows than it says."""
    capped_at: CappedAt = None
    """The number from which on the server counts no further; there may be more rows, then."""


class HeaderTotal(Declaration):
    """The total stands in a response header."""

    type: Literal["header"]
    """The total stands in a response header."""
    name: ApiName
    """The header's name."""
    at_least: AtLeast = False
    """Whether there may be more rows than it says."""
    capped_at: CappedAt = None
    """The number from which on the server counts no further; there may be more rows, then."""


class RequestTotal(Declaration):
    """A request of its own tells the total, at a JMESPath of its body."""

    type: Literal["request"]
    """A request of its own tells the total."""
    path: Path
    """Below the connection's base URL; may hold `{param}`."""
    query: dict[ApiName, Scalar | list[Scalar]] = Field(default_factory=dict)
    """Query parameters of that request; texts may hold `{param}`."""
    value: Expression
    """JMESPath of the total in the answer."""
    at_least: AtLeast = False
    """Whether there may be more rows than it says."""
    capped_at: CappedAt = None
    """The number from which on the server counts no further; there may be more rows, then."""


class UnknownTotal(Declaration):
    """Nobody knows the total before the end."""

    type: Literal["unknown"] = "unknown"
    """Nobody knows the total before the end."""


Total = Annotated[BodyTotal | HeaderTotal | RequestTotal | UnknownTotal, Field(discriminator="type")]


class Disposition(StrEnum):
    """What landing does with rows that are already there."""

    APPEND = "append"
    MERGE = "merge"
    REPLACE = "replace"


def _iso_in_files(column: BaseModel) -> str | None:
    return "iso" if getattr(column, "type", None) in TIME_TYPES else None


TimeFormat = Annotated[
    str,
    demand(time_format_problem),
    Since(format=3),
    InFiles(
        value=_iso_in_files,
        before="PostgreSQL read the value in whatever way it could: 01/02/2024, today, 20240102, an offset dropped",
        keep="postgresql",
    ),
]


class Column(Declaration):
    """A column of the target: its PostgreSQL type, and where in a record its value stands."""

    type: ColumnType
    """PostgreSQL type."""
    path: Expression | None = None
    """JMESPath of the value within a record; the field of the column's name when not given."""
    format: TimeFormat = "postgresql"
    """For dates and times, how the source spells them: iso (ISO 8601, RFC 3339; what a file means by leaving it out),
    epoch_s, epoch_ms, epoch_us, a pattern of strptime such as %d/%m/%Y, or postgresql (whatever PostgreSQL reads)."""
    timezone: Annotated[Timezone | None, Since(format=3)] = None
    """For dates and times: the zone of a time without an offset, and the one in which a column without offsets tells
    a time that has one; UTC when not given."""
    null_if: Annotated[tuple[Scalar, ...], Field(max_length=100), Since(format=3)] = ()
    """Values that mean that there is none, such as "" or "N/A"."""


Status = Annotated[int, Field(ge=200, le=599)]


class When(Declaration):
    """A condition on an answer: whatever is given of it must hold."""

    status: tuple[Status, ...] = ()
    """Its status is one of these; none: any success (200 to 299)."""
    headers: dict[ApiName, str] = Field(default_factory=dict)
    """Its headers have these values, capitals or not; `*` stands for any characters."""
    body: Expression | None = None
    """JMESPath on its body that finds something: not null, false, or an empty text, list or object."""


class RetryWhen(When):
    """An answer that means "later"."""

    wait_s: float | None = Field(default=None, gt=0, le=86_400)
    """Seconds to wait where the answer names no time; none: as in `retries`."""
    pauses: Literal["host", "request"] | None = None
    """What waits: all requests to the host, or this one; none: this one after a success other than 200, else all."""


class Target(Declaration):
    """Where rows land: a table in schema `landing`."""

    table: TableName
    """The table's name in schema landing."""
    columns: dict[Identifier, Column] = Field(default_factory=dict)
    """The table's columns; undeclared fields go into `_extra`. Without any, whole documents land as JSONB."""
    key: tuple[Identifier, ...] = ()
    """What makes a row unique; needed to merge."""
    disposition: Disposition = Disposition.APPEND
    """append: add, a shard's rows replacing what an earlier run of it left; merge: upsert by key;
    replace: swap the whole table when all of it has been fetched."""
    replace_when: Annotated[Literal["complete", "partial"], Since(format=2)] = "complete"
    """For replace: a task that ends PARTIAL leaves the old rows (complete), or swaps in what it has (partial)."""


class Conditional(Declaration):
    """Pages are asked for only if they have changed since their rows landed (ETag, Last-Modified)."""

    full_after_h: float = Field(default=168.0, gt=0)
    """Hours after which a page is fetched in full again, whatever its server says of it."""


class Limits(Declaration):
    """What a host bears, all nodes together, and what we bear of a host."""

    concurrency: int = Field(default=4, ge=1, le=64)
    """Requests to the host in flight at once, of all nodes together."""
    requests_per_s: float | None = Field(default=None, gt=0)
    """Requests to the host a second at most, of all nodes together, evenly spaced; none: any number."""
    daily_quota: int | None = Field(default=None, ge=1, le=10**12)
    """Requests to the host a UTC day at most, of all nodes together, retries included; none: any number."""
    max_page_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Bytes of one response's body at most, decompressed."""
    max_depth: int = Field(default=64, ge=1, le=512)
    """Levels of nesting in a body at most."""
    max_pages: int = Field(default=100_000, ge=1)
    """Pages of one shard at most."""
    max_empty_pages: Annotated[int, Field(ge=1), Since(format=3)] = 10_000
    """Pages without rows in a row at most, each of which names another one."""


class Timeouts(Declaration):
    """Seconds: to connect, between two reads, for one request in all."""

    connect_s: float = Field(default=10.0, gt=0)
    """Seconds to connect."""
    read_s: float = Field(default=30.0, gt=0)
    """Seconds between two reads."""
    request_s: float = Field(default=120.0, gt=0)
    """Seconds for one request in all."""


class Retries(Declaration):
    """`max_retries` of the collect task; `http_attempts` of one request inside a shard."""

    max_retries: int = Field(default=3, ge=0, le=20)
    """How often a failed collect task is tried again."""
    base_s: float | None = Field(default=None, gt=0)
    """Seconds before the first retry of a task, doubled with each; as in rules/lanes.yaml when not given."""
    http_attempts: int = Field(default=4, ge=1, le=20)
    """How often one request is sent at most."""
    http_backoff_s: float = Field(default=0.5, gt=0)
    """Seconds before a request is sent again, doubled with each attempt, jittered."""
    http_max_backoff_s: float = Field(default=30.0, gt=0)
    """Seconds between two attempts of a request at most."""


class Dedup(Declaration):
    """How long a submission refuses its equals, and what makes two equal beside url, method and params."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    ttl_h: float = Field(default=24.0, gt=0)
    """Hours for which a submission refuses its equals."""
    while_: Literal["window", "active"] = Field(default="window", alias="while")
    """window: equals are refused for ttl_h, also when the task has ended well; active: only until it has ended."""
    identity: dict[str, Scalar] = Field(default_factory=dict)
    """What else makes two submissions different."""


class MergeList(Declaration):
    """Tasks that differ in a list of values only become one, with all the values."""

    type: Literal["list"]
    """A parameter holds a list of values."""
    param: Identifier
    """The parameter, of type string: values with the separator between them."""
    separator: str = Field(default=",", min_length=1, max_length=5)
    """What stands between two values."""
    max_values: int = Field(default=100, ge=2, le=10_000)
    """Values of a merged task at most; URLs have a length too."""
    column: Identifier
    """The target's column that a value selects: it says which rows are whose."""


class MergeRange(Declaration):
    """Tasks whose ranges overlap or adjoin, and that are equal otherwise, become one over the whole range."""

    type: Literal["range"]
    """Two parameters are the ends of a range."""
    start: Identifier
    """The parameter with the range's first value: an integer, number, date or datetime."""
    end: Identifier
    """The parameter with the range's last value, of the same type."""
    end_inclusive: bool = True
    """Whether the API counts the last value in."""
    max_length: float | None = Field(default=None, gt=0)
    """Length of a merged range at most: in units for numbers, in days for dates and datetimes."""
    column: Identifier
    """The target's column that the range selects: it says which rows are whose."""


Merge = Annotated[MergeList | MergeRange, Field(discriminator="type")]


Label = Annotated[str, Field(min_length=1, max_length=200), _OneLine]


class Placement(Declaration):
    """Which nodes may, and which would best, collect from a source; an agent's `--label` gives a node its labels."""

    require: dict[Label, Label] = Field(default_factory=dict)
    """Labels that a node must have, such as region: eu; a task waits until one has them all."""
    prefer: dict[Label, Label] = Field(default_factory=dict)
    """Labels that a node would better have; see affinity in rules/placement.yaml."""


class CountShards(Declaration):
    """Ranges of rows, by offset and size: where paging can be split and the total is known; else one shard streams."""

    by: Literal["count"] = "count"
    """Ranges of rows."""
    target_s: float | None = Field(default=None, gt=0)
    """Seconds that a shard shall take; as in rules/sharding.yaml when not given."""
    min_size: int | None = Field(default=None, ge=1)
    """Rows of a shard at least; one page when not given."""
    max_size: int | None = Field(default=None, ge=1)
    """Rows of a shard at most; without it as many as keep every request in flight busy."""


class AskedRange(Declaration):
    """A request of its own tells the least and the greatest value there are."""

    path: Path
    """Below the connection's base URL; may hold `{param}`."""
    query: dict[ApiName, Scalar | list[Scalar]] = Field(default_factory=dict)
    """Query parameters of that request; texts may hold `{param}`."""
    low: Expression
    """JMESPath of the least value in the answer; null: there is nothing to collect."""
    high: Expression
    """JMESPath of the greatest value in the answer; null: there is nothing to collect."""


Bounds = Literal["closed", "half_open"]


class KeyRangeShards(Declaration):
    """Ranges of a whole-numbered key."""

    by: Literal["key_range"]
    """Ranges of a whole-numbered key."""
    low: Identifier
    """The parameter with a range's first key, of type integer."""
    high: Identifier
    """The parameter with a range's end, of type integer."""
    bounds: Bounds
    """closed: the API counts `high` in; half_open: it does not."""
    step: int = Field(ge=1, le=10**15)
    """Keys of a shard."""
    min_step: int | None = Field(default=None, ge=1)
    """With it, or with max_step, the step adapts to what the source did before: keys of a shard at least."""
    max_step: int | None = Field(default=None, ge=1)
    """Keys of a shard at most."""
    target_s: float | None = Field(default=None, gt=0)
    """Seconds that a shard shall take, where the step adapts."""
    range: AskedRange | None = None
    """Where the range comes from when a submission does not give it."""


class DateWindowShards(Declaration):
    """Windows of time, exact to the calendar, in UTC."""

    by: Literal["date_window"]
    """Windows of time."""
    start: Identifier
    """The parameter with a window's start, of type date or datetime."""
    end: Identifier
    """The parameter with a window's end, of the same type."""
    bounds: Bounds
    """closed: the API counts `end` in; half_open: it does not."""
    window: Duration | None = None
    """Length of a window, ISO 8601: P1D, P1M, PT6H. Months are those of the calendar, counted from the first start."""
    days: int | None = Field(default=None, ge=1, le=366_000)
    """Length of a window in days, instead of `window`."""
    resolution: Duration | None = None
    """For datetimes with closed bounds: how finely the API tells times (PT1S); windows lie that far apart."""
    range: AskedRange | None = None
    """Where the range comes from when a submission does not give it."""


class ValuesShards(Declaration):
    """Values, dealt out."""

    by: Literal["values"]
    """Values, dealt out."""
    param: Identifier
    """The parameter that holds a shard's values."""
    per_shard: int = Field(default=1, ge=1, le=10_000)
    """Values of a shard; more than one needs a separator."""
    separator: str | None = Field(default=None, min_length=1, max_length=5)
    """What stands between two values of the parameter, which is of type string; none: it holds one value."""
    values: tuple[Scalar, ...] = Field(default=(), max_length=100_000)
    """The values when a submission gives none."""


class EntryPointShards(Declaration):
    """Whatever a Python function says."""

    by: Literal["entry_point"]
    """Whatever a Python function says."""
    entry_point: EntryPointName
    """`package.module:function`; called with the task's parameters and a ShardContext."""
    options: dict[Identifier, Any] = Field(default_factory=dict)
    """Given to the function as `context.options`."""


Shards = Annotated[
    CountShards | KeyRangeShards | DateWindowShards | ValuesShards | EntryPointShards,
    Field(discriminator="by"),
]


MaxBadShare = Annotated[
    float,
    Field(ge=0, le=1),
    Since(format=3),
    InFiles(value=0.1, before="a task was COMPLETED whatever share of its rows was bad", keep=1.0),
]
MaxRepeatedRows = Annotated[
    int | None,
    Field(ge=0),
    Since(format=3),
    InFiles(value=0, before="rows that a task had fetched twice were not counted", keep=None),
]


class Source(Declaration):
    """A declared thing to collect from."""

    name: Name
    """The file's name without `.yaml`."""
    description: str = ""
    """What it is, for people."""
    connection: ConnectionId
    """The Airflow connection: base URL and secrets."""
    auth: Auth = Auth()
    """How a request proves who asks."""
    request: Request = Request()
    """The request of one page."""
    records: Expression = "@"
    """JMESPath of the list of records in a page's body."""
    records_may_be: Annotated[tuple[Literal["absent", "object"], ...], Since(format=3)] = ()
    """What stands where the list is due, beside a list: absent (missing or null) for no rows, object for one row."""
    select: Annotated[Expression | None, Since(format=3)] = None
    """JMESPath on the list of records: the rows to land; none: all. Paging and totals count what the server sent."""
    end: Annotated[tuple[When, ...], Since(format=3)] = ()
    """Answers that mean "no more rows"."""
    paging: Paging = NoPaging()
    """How the pages are asked for."""
    total: Total = UnknownTotal()
    """Where the number of rows stands."""
    batch_size: int = Field(default=1000, ge=1, le=1_000_000)
    """Rows of one shard, when paging can be split, until its pace is known; of one page unless page_size says
    otherwise."""
    page_size: int | None = Field(default=None, ge=1)
    """Rows of one page."""
    shards: Shards = CountShards()
    """How a task is cut into parts that run alone."""
    target: Target
    """Where rows land."""
    conditional: Conditional | None = None
    """Whether pages are asked for only if they have changed; none: they are always fetched."""
    schedule: Schedule | None = None
    """Cron of five fields, or a preset such as @hourly; none: only when submitted."""
    timezone: Annotated[Timezone | None, Since(format=3)] = None
    """The time zone of schedule, and of days that relative defaults name; none: UTC."""
    priority: int | None = Field(default=None, ge=0, le=10)
    """8-10 urgent, 4-7 normal, 0-3 bulk; none: as in rules/priority.yaml."""
    priority_formula: PriorityFormula | None = None
    """What is added to it, where that is otherwise than in rules/priority.yaml."""
    limits: Limits = Limits()
    """What the host bears."""
    timeouts: Timeouts = Timeouts()
    """How long to wait."""
    retries: Retries = Retries()
    """How often to try again."""
    retry_when: Annotated[tuple[RetryWhen, ...], Since(format=3)] = ()
    """Answers that mean "later": the request is sent again when one of these holds."""
    dedup: Dedup = Dedup()
    """Which submissions are duplicates."""
    merge: Merge | None = None
    """Which waiting tasks become one; none: never."""
    merge_window_seconds: float = Field(default=60.0, ge=0)
    """For how long a task that waits is open to be merged with what comes later."""
    max_bad_rows: int | None = Field(default=None, ge=0)
    """Rows of a shard that may not fit their columns before the shard fails; none: any number."""
    max_bad_share: MaxBadShare = 1.0
    """Share of a task's rows that may not fit their columns before it ends PARTIAL; fewer than ten never do that."""
    max_repeated_rows: MaxRepeatedRows = None
    """Rows that a task may fetch twice before it ends PARTIAL; none: any number."""
    max_failed_shards: int = Field(default=0, ge=0)
    """Shards that may fail before the task does."""
    max_active_tasks: int | None = Field(default=None, ge=1)
    """Collect tasks of this source that may run at once."""
    placement: Placement = Placement()
    """On which nodes its tasks run; none: on any."""
    sheddable: bool = False
    """Whether a backlog rule may cancel waiting tasks of this source."""

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> Self:
        from collect_ops.sources.rules import faults_of

        if reads_stored(info):
            return self
        context = info.context or {}
        found = faults_of(self, unreadable=context.get("unreadable", ()), rules=context.get("rules"))
        if faults := tuple(found):
            raise misfits(faults)
        return self
