"""What the parts of a source demand of each other. Pure.

A rule names the fields it reads, so that the faults of a file can be reported all at once: a rule whose
fields are faulty themselves has nothing to say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from collect_ops.kernel.errors import Fault
from collect_ops.kernel.faults import MAX_FAULTS
from collect_ops.sources.merge_rules import merge_faults
from collect_ops.sources.model import (
    PAGING_PARAMS,
    Auth,
    AuthType,
    CursorPaging,
    Disposition,
    NextUrlPaging,
    NoPaging,
    OffsetPaging,
    PagePaging,
    RequestTotal,
    Source,
)
from collect_ops.sources.shard_faults import asked_range_of, shard_faults
from collect_ops.sources.templates import placeholders_within
from collect_ops.sources.texts import TIME_TYPES, header_name_problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One demand.

    Args:
        reads: The dotted fields it looks at, with all that is in them.
        needs: Fields that must be there, whatever is in them.
        faults: Finds what breaks it.
    """

    reads: tuple[str, ...]
    needs: tuple[str, ...] = ()
    faults: Callable[[Source], Iterator[Fault]]


def faults_of(
    source: Source, *, unreadable: Collection[str] = (), rules: Sequence[Rule] | None = None
) -> Iterator[Fault]:
    """Where the parts of a source do not fit together; no more faults than anybody reads.

    Args:
        source: The source.
        unreadable: Dotted fields that hold a stand-in, since what was given is faulty itself.
        rules: What is demanded; `RULES` when not given, which hold for what was stored as well.
    """
    found = (
        fault
        for rule in (RULES if rules is None else rules)
        if not any(_touches(rule, field) for field in unreadable)
        for fault in rule.faults(source)
    )
    return islice(found, MAX_FAULTS + 1)


def _touches(rule: Rule, field: str) -> bool:
    return any(_overlap(read, field) for read in rule.reads) or any(
        need == field or need.startswith(f"{field}.") for need in rule.needs
    )


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _templates_name_params(source: Source, part: str) -> Iterator[Fault]:
    declared = tuple(source.request.params)
    for field, name in _templates(source):
        if field.startswith(part) and name not in declared:
            yield Fault(
                field=field,
                value=f"{{{name}}}",
                problem=f"names no parameter of request.params (for the text itself write {{{{{name}}}}})",
                allowed=declared,
            )


def _templates(source: Source) -> Iterator[tuple[str, str]]:
    request = source.request
    for part in ("path", "query", "headers", "body"):
        yield from placeholders_within(getattr(request, part), f"request.{part}")
    if isinstance(source.total, RequestTotal):
        yield from placeholders_within(source.total.path, "total.path")
        yield from placeholders_within(source.total.query, "total.query")
    asked = asked_range_of(source)
    if asked is not None:
        yield from placeholders_within(asked.path, "shards.range.path")
        yield from placeholders_within(asked.query, "shards.range.query")


def _path_params_have_values(source: Source) -> Iterator[Fault]:
    for field, name in _templates(source):
        param = source.request.params.get(name)
        if (
            field in ("request.path", "total.path", "shards.range.path")
            and param
            and not param.required
            and param.default in (None, "")
        ):
            yield Fault(
                field=f"request.params.{name}",
                value=None,
                problem=f"stands in {field}: must be required, or have a default",
            )


def _params_are_used(source: Source) -> Iterator[Fault]:
    used = {name for _, name in _templates(source)}
    for name in source.request.params:
        if name not in used:
            yield Fault(
                field=f"request.params.{name}", value=None, problem=f"is never used: nothing names {{{name}}}"
            )


def _body_needs_post(source: Source) -> Iterator[Fault]:
    if source.request.method == "GET" and source.request.body is not None:
        yield Fault(field="request.body", value=None, problem="needs request.method POST")


def _body_paging_has_a_body(source: Source) -> Iterator[Fault]:
    if getattr(source.paging, "location", "query") != "body":
        return
    if source.request.method == "GET":
        yield Fault(field="paging.location", value="body", problem="needs request.method POST")
    if source.request.body is not None and not isinstance(source.request.body, dict):
        yield Fault(
            field="request.body", value=None, problem="must be an object: paging writes its fields into it"
        )


def _paging_params_are_its_own(source: Source) -> Iterator[Fault]:
    place = "body" if getattr(source.paging, "location", "query") == "body" else "query"
    declared = getattr(source.request, place)
    names = [getattr(source.paging, field, None) for field in PAGING_PARAMS]
    given = [name for name in names if name is not None]
    for name in given:
        if isinstance(declared, dict) and name in declared:
            yield Fault(field=f"request.{place}.{name}", value=declared[name], problem="is written by paging")
    if len(set(given)) < len(given):
        yield Fault(field="paging", value=", ".join(given), problem="gives two of its parameters one name")


def _page_size_means_something(source: Source) -> Iterator[Fault]:
    size, paging = source.page_size, source.paging
    if size is None:
        return
    if isinstance(paging, NoPaging):
        yield Fault(field="page_size", value=size, problem="means nothing when paging.type is none")
    elif not isinstance(paging, OffsetPaging | PagePaging) and paging.limit_param is None:
        yield Fault(field="page_size", value=size, problem="needs paging.limit_param")


def _pages_fit_shards(source: Source) -> Iterator[Fault]:
    size, batch = source.page_size, source.batch_size
    if size is None or not isinstance(source.paging, OffsetPaging | PagePaging):
        return
    if size > batch:
        yield Fault(field="page_size", value=size, problem=f"must not be above batch_size, {batch}")
    elif isinstance(source.paging, PagePaging) and batch % size:
        yield Fault(
            field="page_size",
            value=size,
            problem=f"must divide batch_size, {batch}, so that shards begin with a page",
        )


def _merge_has_a_key(source: Source) -> Iterator[Fault]:
    if source.target.disposition is Disposition.MERGE and not source.target.key:
        yield Fault(field="target.key", value=None, problem="is needed to merge")


def _key_is_there(source: Source) -> Iterator[Fault]:
    columns, key = source.target.columns, source.target.key
    first = {name: index for index, name in reversed(list(enumerate(key)))}
    for index, name in enumerate(key):
        if columns and name not in columns:
            yield Fault(
                field=f"target.key.{index}", value=name, problem="is not a column", allowed=tuple(columns)
            )
        elif columns and columns[name].type == "jsonb":
            yield Fault(field=f"target.key.{index}", value=name, problem="must not be a jsonb column")
        elif not columns and name == "document":
            yield Fault(
                field=f"target.key.{index}", value=name, problem="is the column of the whole document"
            )
        if first[name] < index:
            yield Fault(field=f"target.key.{index}", value=name, problem="is named twice")


def _columns_have_names_of_their_own(source: Source) -> Iterator[Fault]:
    for name in source.target.columns:
        if name in _SYSTEM_COLUMNS:
            yield Fault(
                field=f"target.columns.{name}",
                value=name,
                problem="is a column that PostgreSQL itself gives every table: give it another name, with path: "
                f"{name}",
            )


#: PostgreSQL's documentation, section "System Columns".
_SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})


def _times_are_times(source: Source) -> Iterator[Fault]:
    for name, column in source.target.columns.items():
        if column.type in TIME_TYPES:
            # A file that leaves the format out means another one than the model.
            declared = column.format if "format" in column.model_fields_set else None
            if column.timezone is not None and declared == "postgresql":
                problem = "needs a format: PostgreSQL reads what has none in UTC"
                yield Fault(field=f"target.columns.{name}.timezone", value=column.timezone, problem=problem)
            continue
        problem = f"is for columns of type {', '.join(sorted(TIME_TYPES))}"
        if column.format != "postgresql":
            yield Fault(field=f"target.columns.{name}.format", value=column.format, problem=problem)
        if column.timezone is not None:
            yield Fault(field=f"target.columns.{name}.timezone", value=column.timezone, problem=problem)


def _replace_is_whole(source: Source) -> Iterator[Fault]:
    target = source.target
    whole = target.disposition is Disposition.REPLACE and target.replace_when == "complete"
    if whole and source.max_failed_shards:
        problem = (
            "must be 0 with disposition replace, which swaps the table only when every shard is done, unless "
            "target.replace_when is partial"
        )
        yield Fault(field="max_failed_shards", value=source.max_failed_shards, problem=problem)


def _auth_names_its_place(source: Source) -> Iterator[Fault]:
    auth = source.auth
    for kind, fields in _AUTH_FIELDS.items():
        for field in fields:
            # What equals the default is no fault: a stored declaration is dumped whole and read again.
            if auth.type is kind or getattr(auth, field) == Auth.model_fields[field].default:
                continue
            yield Fault(
                field=f"auth.{field}", value=getattr(auth, field), problem=f"is for auth.type {kind} only"
            )
    if auth.type is AuthType.API_KEY:
        yield from _api_key_faults(source, auth)


_AUTH_FIELDS = {
    AuthType.API_KEY: ("location", "name"),
    AuthType.OAUTH2: ("token_url", "scope", "audience", "client_auth"),
}


def _api_key_faults(source: Source, auth: Auth) -> Iterator[Fault]:
    if auth.location == "query":
        taken = {*source.request.query, *(getattr(source.paging, field, None) for field in PAGING_PARAMS)}
        if auth.name in taken:
            yield Fault(
                field="auth.name", value=auth.name, problem="is a query parameter of the request already"
            )
        return
    problem = None if auth.name.lower() == "authorization" else header_name_problem(auth.name)
    if problem:
        yield Fault(field="auth.name", value=auth.name, problem=problem)
    if auth.name.lower() in map(str.lower, source.request.headers):
        yield Fault(field="auth.name", value=auth.name, problem="is a header of the request already")


def _backoff_is_ordered(source: Source) -> Iterator[Fault]:
    retries = source.retries
    if retries.http_backoff_s > retries.http_max_backoff_s:
        yield Fault(
            field="retries.http_backoff_s",
            value=retries.http_backoff_s,
            problem=f"must not be above http_max_backoff_s, {retries.http_max_backoff_s:g}",
        )


def _conditional_is_safe(source: Source) -> Iterator[Fault]:
    if source.conditional is None:
        return
    if source.request.method != "GET":
        problem = "needs request.method GET: other methods have no unchanged answer (RFC 9110 section 13)"
        yield Fault(field="conditional", value=None, problem=problem)
    if source.target.disposition is Disposition.REPLACE:
        problem = (
            "does not go with disposition replace: an unchanged page's rows would be missing from what is "
            "swapped in; allowed are merge and append"
        )
        yield Fault(field="conditional", value=None, problem=problem)
    if source.merge is not None:
        problem = "does not go with merge: whose rows are whose is told by the task that has landed them"
        yield Fault(field="conditional", value=None, problem=problem)
    for name in source.request.headers:
        if name.lower() in _CONDITIONS:
            problem = "is written by conditional"
            yield Fault(field=f"request.headers.{name}", value=None, problem=problem)


_CONDITIONS = frozenset(
    {"if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range", "range"}
)


def _next_url_is_not_everything(source: Source) -> Iterator[Fault]:
    # "@" is the whole body: it can be neither an address nor a token, and the first page would be the last.
    paging = source.paging
    if isinstance(paging, NextUrlPaging) and paging.next_url.strip() == "@":
        yield Fault(
            field="paging.next_url", value=paging.next_url, problem="is the whole body, not an address"
        )
    if isinstance(paging, CursorPaging) and paging.cursor.strip() == "@":
        yield Fault(field="paging.cursor", value=paging.cursor, problem="is the whole body, not a token")


RULES: tuple[Rule, ...] = (
    *(
        Rule(reads=(part,), needs=("request.params",), faults=partial(_templates_name_params, part=part))
        for part in ("request.path", "request.query", "request.headers", "request.body", "total", "shards")
    ),
    Rule(reads=("request.path", "request.params", "total", "shards"), faults=_path_params_have_values),
    Rule(reads=("request", "total", "shards"), faults=_params_are_used),
    Rule(reads=("request.method", "request.body"), faults=_body_needs_post),
    Rule(reads=("request.method", "request.body", "paging"), faults=_body_paging_has_a_body),
    Rule(reads=("request.query", "request.body", "paging"), faults=_paging_params_are_its_own),
    Rule(reads=("paging", "page_size"), faults=_page_size_means_something),
    Rule(reads=("paging", "page_size", "batch_size"), faults=_pages_fit_shards),
    Rule(reads=("paging",), faults=_next_url_is_not_everything),
    Rule(reads=("target.disposition", "target.key"), faults=_merge_has_a_key),
    Rule(reads=("target.key", "target.columns"), faults=_key_is_there),
    Rule(reads=("target.columns",), faults=_columns_have_names_of_their_own),
    Rule(reads=("target.columns",), faults=_times_are_times),
    Rule(reads=("target.disposition", "target.replace_when", "max_failed_shards"), faults=_replace_is_whole),
    Rule(reads=("auth", "request.query", "request.headers", "paging"), faults=_auth_names_its_place),
    Rule(reads=("retries",), faults=_backoff_is_ordered),
    Rule(
        reads=("conditional", "request.method", "request.headers", "target.disposition", "merge"),
        faults=_conditional_is_safe,
    ),
    Rule(reads=("merge", "request.params", "target.columns", "target.disposition"), faults=merge_faults),
    Rule(
        reads=("shards", "request.params", "paging", "page_size", "batch_size", "merge"), faults=shard_faults
    ),
)
