"""A source asked whether it is as declared: two pages fetched, nothing stored."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Literal

from collect_ops.sources.model import (
    CountShards,
    Disposition,
    NoPaging,
    OffsetPaging,
    PagePaging,
    RequestTotal,
    Source,
    UnknownTotal,
)

if TYPE_CHECKING:
    from collect_ops.collectors.http import HttpCollector
    from collect_ops.collectors.page import Page
    from collect_ops.sources.request import RenderedRequest

#: What becomes of a declared total that is none.
_STREAMS = "one shard streams, and rows missing at its end go unnoticed"
_TOTAL_REMEDY = "see `total` of the declaration"
# Of a list of fields.
_SHOWN_CHARS = 1000

State = Literal["ok", "warning", "fault", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check has found.

    Args:
        check: Its name: `connection`, `shards` and `total request` (where there are any), `total`, `page`, `page size`,
            `next page`, `types`, `columns`, `key`, `table`.
        state: Whether it is as it should be; `skipped`, where nobody could look.
        text: What was seen.
        remedy: What to do about it.
    """

    check: str
    state: State
    text: str
    remedy: str | None = None


@dataclass(slots=True)
class _Findings:
    tell: Callable[[Finding], None] | None
    found: list[Finding] = field(default_factory=list)

    def add(self, check: str, state: State, text: str, remedy: str | None = None) -> None:
        finding = Finding(check=check, state=state, text=text, remedy=remedy)
        self.found.append(finding)
        if self.tell is not None:
            self.tell(finding)

    def extend(self, findings: Iterator[Finding]) -> None:
        for each in findings:
            self.add(each.check, each.state, each.text, each.remedy)


async def check_online(
    source: Source, params: Mapping[str, object], *, on_finding: Callable[[Finding], None] | None = None
) -> list[Finding]:
    """Ask a source, and compare what it gives with what is declared.

    Args:
        source: The source.
        params: Its parameters, as given.
        on_finding: Told of each finding at once.

    Returns:
        A finding or more a check; of what the source itself does wrong, faults: nothing of it is raised.
    """
    from collect_ops.cli.connections import endpoint_of
    from collect_ops.collectors.http import HttpCollector
    from collect_ops.kernel.errors import CollectOpsError, ValidationFailed
    from collect_ops.sources.request import render

    findings = _Findings(on_finding)
    pages: list[Page] = []
    try:
        request = render(source, params)
    except ValidationFailed as error:
        findings.add("parameters", "fault", _one_line(error), "give them: -p NAME=VALUE")
        return findings.found
    try:
        endpoint = endpoint_of(source)
        async with HttpCollector(source, request, endpoint) as collector:
            asked = await _asked(source, params, request, collector, findings)
            if asked is not None:
                await _fetch(source, asked, collector, findings, pages)
    except CollectOpsError as error:
        findings.add("connection", "fault", _one_line(error), _connection_remedy(source, error))
    if pages:
        records = [record for page in pages for record in page.records]
        if records:
            await _check_types(source, records, collector, findings)
            findings.extend(_columns(source, records, collector.excerpt))
            findings.extend(_keys(source, records, collector.excerpt))
    _check_table(source, findings)
    return findings.found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What a task would ask the source for.

    Args:
        shard: The request of the first shard, where that is one of its own.
        counting: The request that tells the total, where that is one of its own.
    """

    shard: RenderedRequest | None
    counting: RenderedRequest | None


async def _asked(
    source: Source,
    params: Mapping[str, object],
    request: RenderedRequest,
    collector: HttpCollector,
    findings: _Findings,
) -> _Asked | None:
    """What a task would ask for, as planning finds it out; None when it cannot be found out, or would be nothing."""
    from collect_ops.execution.cutting import CutTask, divide
    from collect_ops.execution.rules import sharding_rules
    from collect_ops.execution.sizing import History
    from collect_ops.kernel.errors import CollectOpsError
    from collect_ops.sources.request import check_params, render

    if isinstance(source.shards, CountShards):
        return _Asked(shard=None, counting=request.total)
    checked = check_params(source, params)
    task = CutTask(source=source, params=checked, history=History(), target_s=sharding_rules().target_s)
    try:
        parts, counting = await divide(task, collector)
    except CollectOpsError as error:
        collector.mask_error(error)
        no_answer = _check_of(error) == "connection"
        remedy = _connection_remedy(source, error) if no_answer else "see `shards` of the declaration"
        findings.add("connection" if no_answer else "shards", "fault", _one_line(error), remedy)
        return None
    findings.add("shards", "ok" if parts.shards else "warning", collector.masked(parts.why))
    if not parts.shards:
        return None
    shard = render(source, {**checked, **(parts.shards[0].params or {})})
    return _Asked(shard=shard, counting=counting)


async def _fetch(
    source: Source, asked: _Asked, collector: HttpCollector, findings: _Findings, pages: list[Page]
) -> None:
    """Fetch up to two pages, and look at what each brings; a failure of the second leaves the first in `pages`."""
    from collect_ops.collectors.page import Span
    from collect_ops.kernel.errors import CollectOpsError, Unanswered

    total: int | None = None
    try:
        async with contextlib.aclosing(collector.pages(Span(), None, asked.shard)) as following:
            async for page in following:
                pages.append(page)
                if len(pages) > 1:
                    break
                where = page.request.get("url", source.request.path)
                findings.add("connection", "ok", f"{source.connection}: {where} answered")
                if asked.counting is not None:
                    total = await _ask_total(source, asked.counting, collector, findings, page)
                else:
                    total = _check_total(source, page, findings)
                findings.extend(_first_page(source, page))
                if page.next_position is None:
                    break
    except CollectOpsError as error:
        collector.mask_error(error)
        check = "next page" if pages else _check_of(error)
        findings.add(check, "fault", _one_line(error), None if pages else _connection_remedy(source, error))
        if not pages and asked.counting is not None:
            if isinstance(error, Unanswered):
                what = f"not asked: {collector.shown(asked.counting)}; the host has not answered"
                findings.add("total request", "skipped", what)
            else:
                await _ask_total(source, asked.counting, collector, findings)
        return
    # A total that was asked for is that of all shards; the pages are those of the first.
    of_pages = asked.counting is None or asked.shard is None
    findings.extend(_next_page(source, pages, total if of_pages else None))


async def _ask_total(
    source: Source,
    counting: RenderedRequest,
    collector: HttpCollector,
    findings: _Findings,
    page: Page | None = None,
) -> int | None:
    """The total that a request of its own tells, compared with a page; a failure is that request's, not the page's."""
    from collect_ops.collectors.errors import ExpressionFailed, UrlNotFound
    from collect_ops.kernel.errors import CollectOpsError

    check = "total request"
    try:
        named = await collector.named_total(counting)
    except CollectOpsError as error:
        collector.mask_error(error)
        remedy = _connection_remedy(source, error)
        if isinstance(error, UrlNotFound):
            remedy = "see total.path of the declaration"
        elif isinstance(error, ExpressionFailed):
            remedy = "see total.value of the declaration"
        findings.add(check, "fault", _one_line(error), remedy or "see `total` of the declaration")
        return None
    findings.add(check, "ok", f"{collector.shown(counting)} answered")
    if named.problem is not None:
        findings.add("total", "warning", f"{collector.masked(named.problem)}: {_STREAMS}", _TOTAL_REMEDY)
    elif page is not None:
        _compare_total(named.rows, page, findings)
    return named.rows


def _check_total(source: Source, page: Page, findings: _Findings) -> int | None:
    """The total that pages name."""
    if isinstance(source.total, UnknownTotal):
        findings.add("total", "ok", "none is declared: rows missing at the end go unnoticed")
        return None
    if isinstance(source.total, RequestTotal):
        findings.add("total", "ok", "no request counts all shards: rows missing at the end go unnoticed")
        return None
    _compare_total(page.total, page, findings)
    return page.total


def _compare_total(total: int | None, page: Page, findings: _Findings) -> None:
    if total is None:
        findings.add("total", "warning", f"declared, but the source names none: {_STREAMS}", _TOTAL_REMEDY)
    elif total < page.rows:
        text = f"the source names {total:,}, and its first page holds {page.rows:,} rows"
        remedy = "another value is the total: see `total` of the declaration"
        findings.add("total", "fault", text, remedy)
    else:
        findings.add("total", "ok", f"{total:,} rows")


def _first_page(source: Source, page: Page) -> Iterator[Finding]:
    got = page.rows
    if not got:
        remedy = "see `records` and the parameters, if there should be rows"
        yield Finding(check="page", state="warning", text="the first page holds no rows", remedy=remedy)
        return
    kept = "" if source.select is None else f", of which select makes {len(page.records):,}"
    yield Finding(check="page", state="ok", text=f"{got:,} rows on the first page{kept}")
    wanted = _asked_size(source)
    if wanted is None:
        return
    if got == wanted:
        yield Finding(check="page size", state="ok", text=f"asked for {wanted:,} rows, got {got:,}")
    elif got > wanted:
        text = f"asked for {wanted:,} rows, got {got:,}: the source takes no page size, or under another name"
        remedy = "see the names of its parameters under `paging`"
        yield Finding(check="page size", state="warning", text=text, remedy=remedy)
    elif page.next_position is None or page.total == got:
        text = f"asked for {wanted:,} rows, got all {got:,} there are"
        yield Finding(check="page size", state="ok", text=text)
    else:
        text = f"asked for {wanted:,} rows, got {got:,} though there are more: the source caps its pages"
        yield Finding(check="page size", state="warning", text=text, remedy=f"page_size: {got}")


def _asked_size(source: Source) -> int | None:
    """Rows that a page is asked for; None where the request says nothing of it."""
    if isinstance(source.paging, NoPaging):
        return None
    if all(getattr(source.paging, name, None) is None for name in ("limit_param", "size_param")):
        return None
    return source.page_size or source.batch_size


def _next_page(source: Source, pages: Sequence[Page], total: int | None) -> Iterator[Finding]:
    check, declared = "next page", "see `paging` of the declaration"
    if not pages:
        return
    if isinstance(source.paging, NoPaging):
        if _says_more(source, pages[0]):
            text = "paging.type is none, and the page says that there are more rows (has_more)"
            remedy = f"if more than this page is meant, {declared}"
            yield Finding(check=check, state="warning", text=text, remedy=remedy)
        return
    if len(pages) > 1 and (repeated := _repeated(source, *pages[:2])):
        yield repeated
        return
    got, last = sum(page.rows for page in pages), pages[-1]
    ends = last.next_position is None or not last.rows
    if ends and total is not None and total > got:
        text = f"the pages end after {got:,} rows, though the source names {total:,}"
        yield Finding(check=check, state="fault", text=text, remedy=declared)
    elif last.rows and len(pages) > 1:
        text = f"{last.rows:,} rows on the second page, other ones"
        yield Finding(check=check, state="ok", text=text)
    elif total is None and got and got == _asked_size(source):
        text, remedy = "none after the first page, which is full", f"if there are more rows, {declared}"
        yield Finding(check=check, state="warning", text=text, remedy=remedy)
    else:
        yield Finding(check=check, state="ok", text="none after the first page")


def _says_more(source: Source, page: Page) -> bool:
    from collect_ops.collectors import json_body
    from collect_ops.collectors.answer import says_more

    try:
        document = json_body.parse(page.raw, max_depth=source.limits.max_depth)
    except (json_body.Unreadable, json_body.Truncated, json_body.TooDeep):
        return False  # it was read in the charset that its header names, which a page does not keep
    return says_more(document) is True


def _repeated(source: Source, first: Page, second: Page) -> Finding | None:
    """What is wrong with a second page that holds rows of the first."""
    same = first.fingerprint is not None and second.fingerprint == first.fingerprint
    if same or (second.records and second.records == first.records):
        text = "the second page holds the rows of the first: the source does not page as declared"
        names = "see the names of its parameters under `paging`"
        return Finding(check="next page", state="fault", text=text, remedy=names)
    if not (shared := _shared(first, second)):
        return None
    text = (
        f"{len(second.records):,} rows on the second page, {shared:,} of them were on the first: the source "
        "repeats rows"
    )
    remedy = "ask for a fixed order, if the source can sort"
    if isinstance(source.paging, OffsetPaging) and shared == 1 and second.records[0] == first.records[-1]:
        remedy = "if the source counts offsets from 1, paging.first_offset: 1"
    elif isinstance(source.paging, OffsetPaging | PagePaging) and _is_short(source, first):
        remedy += "; if it leaves rows out of its pages, paging.advance_by: page_size"
    return Finding(check="next page", state="warning", text=text, remedy=remedy)


def _is_short(source: Source, page: Page) -> bool:
    """Whether a page holds fewer rows than were asked for."""
    wanted = _asked_size(source)
    return wanted is not None and page.rows < wanted


def _shared(first: Page, second: Page) -> int:
    """Rows of the second page that the first held."""
    from collect_ops.kernel.json_text import ascii_json

    return (Counter(map(ascii_json, first.records)) & Counter(map(ascii_json, second.records))).total()


async def _check_types(
    source: Source, records: Sequence[Any], collector: HttpCollector, findings: _Findings
) -> None:
    from collect_ops.cli.preview import misfit_lines, misfits_of

    misfits, untried = await misfits_of(source, records, collector)
    if misfits is None:
        findings.add("types", "skipped", f"not checked: {untried}")
    elif not misfits:
        findings.add("types", "ok", f"all {len(records):,} rows fit their columns")
    for text in misfit_lines(misfits or ()):
        findings.add("types", "fault", text, "another type, or another `path`, under target.columns")


def _columns(source: Source, records: Sequence[Any], excerpt: Callable[[str], str]) -> Iterator[Finding]:
    """Declared columns that no record has, and the fields that there are.

    Args:
        source: Declares them.
        records: What the server sent.
        excerpt: Of what the server sent, so much as may be shown.
    """
    from collect_ops.kernel.errors import did_you_mean
    from collect_ops.landing.records import RowFault, extractor

    objects = [record for record in records if isinstance(record, Mapping)]
    columns = source.target.columns
    if not columns or not objects:
        return
    fields = list(dict.fromkeys(name for each in objects for name in each))
    empty = []
    for name, column in columns.items():
        extract = extractor(name, column)
        try:
            if all(extract(each) is None for each in objects):
                empty.append(name)
        except RowFault:
            continue  # it is among the misfits
    for name in empty:
        path = columns[name].path or name
        close = did_you_mean(path, fields)
        hint = f"; did you mean {excerpt(close)!r}?" if close else ""
        remedy = f"there are: {', '.join(map(excerpt, fields[:40]))}"[:_SHOWN_CHARS]
        text = f"{name}: no row has {path}, so it would be NULL everywhere{hint}"
        yield Finding(check="columns", state="warning", text=text, remedy=remedy)
    if not empty:
        yield Finding(check="columns", state="ok", text=f"all {len(columns)} columns are in the rows")


def _keys(source: Source, records: Sequence[Any], excerpt: Callable[[str], str]) -> Iterator[Finding]:
    """Whether the key tells the rows apart; see `_columns`."""
    from collect_ops.landing.records import RowFault, extractor, json_text

    target = source.target
    if target.disposition is not Disposition.MERGE or not all(isinstance(each, Mapping) for each in records):
        return
    columns = target.columns
    try:
        extracts = [
            extractor(name, columns[name]) if name in columns else methodcaller("get", name)
            for name in target.key
        ]
        keys = Counter(json_text([extract(each) for extract in extracts]) for each in records)
    except RowFault:
        return  # it is among the misfits
    named = ", ".join(target.key)
    repeated = [key for key, count in keys.items() if count > 1]
    if repeated:
        text = (
            f"{named}: {len(repeated):,} keys stand in several rows, such as {excerpt(repeated[0])}; "
            "the last row wins"
        )
        yield Finding(
            check="key", state="warning", text=text, remedy="more fields under target.key, if rows are lost"
        )
    else:
        yield Finding(check="key", state="ok", text=f"{named} tells all {len(records):,} rows apart")


def _check_table(source: Source, findings: _Findings) -> None:
    import os

    from collect_ops.kernel.errors import CollectOpsError
    from collect_ops.landing.migration import plan_migration
    from collect_ops.storage import DatabaseUnavailable, connect, errors

    dsn = os.environ.get("COLLECT_POSTGRES_DSN")
    if not dsn:
        findings.add(
            "table", "skipped", "not checked: COLLECT_POSTGRES_DSN is not set (`make env` prints it)"
        )
        return
    try:
        with connect(dsn, application_name="collect-ops check") as connection:
            planned = plan_migration(connection, source)
    except (DatabaseUnavailable, errors.Error) as error:
        findings.add("table", "skipped", f"not checked: {_one_line(error)}")
        return
    except CollectOpsError as error:
        findings.add("table", "fault", _one_line(error))
        return
    table = f"landing.{planned.table}"
    if planned.fits:
        text = (
            f"{table} fits its declaration"
            if planned.exists
            else f"{table} does not exist: the first task makes it"
        )
        findings.add("table", "ok", text)
        return
    differences = "; ".join(map(str, planned.differences))
    remedy = planned.refusal or f"collect-ops source migrate {source.name}"
    findings.add("table", "fault", f"{table} is not as declared: {differences}", remedy)


def _check_of(error: Exception) -> str:
    """The check that a failed first page belongs to: the server answered, and with something else; or it did not."""
    from collect_ops.collectors import errors

    if isinstance(error, errors.PageTooLong):
        return "page size"
    of_page = (
        errors.NotJson, errors.NestedTooDeep, errors.RecordsNotAList, errors.ExpressionFailed, errors.PageTooLarge,
        errors.PagingValueUnusable, errors.PagingLoop, errors.PageNotThere, errors.UrlNotFound,
        errors.RequestRefused,
    )  # fmt: skip
    return "page" if isinstance(error, of_page) else "connection"


def _connection_remedy(source: Source, error: Exception) -> str | None:
    from collect_ops.collectors.errors import (
        AddressRefused,
        AuthenticationRefused,
        CredentialsMissing,
        HostUnreachable,
    )

    add = f"collect-ops connection add {source.connection} --replace"
    if isinstance(error, AddressRefused):
        return f"{add} … --allow-private-networks, if that address is meant"
    if isinstance(error, AuthenticationRefused | CredentialsMissing):
        return f"{add} … with the credentials of auth.type {source.auth.type}"
    if isinstance(error, HostUnreachable):
        return f"{add} --host …, if the address is wrong"
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
