"""The first page of a source, as it would be collected."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from collect_ops.cli.connections import endpoint_of
from collect_ops.kernel.json_numbers import SpelledNumber
from collect_ops.kernel.json_text import Unwritable, json_bytes
from collect_ops.sources.model import CountShards, OffsetPaging, PagePaging, RequestTotal, Source

if TYPE_CHECKING:
    from collect_ops.collectors.http import HttpCollector
    from collect_ops.landing.trial import Misfit
    from collect_ops.sources.request import RenderedRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What the first page holds.

    Args:
        records: The records, as they came, at most as many as were asked for.
        received: How many the page held.
        total: The total that the page, or a request of its own, named; the page's is that of the shard.
        request: Masked description of the request.
        shards: How many shards a task would be cut into, None where nobody knows before its total is known.
        shard: What the first of them asks for, None where its rows say so.
        sharding: How they come about.
        misfits: What of the whole page does not fit the declared types, None where that was not tried.
        untried: Why it was not.
    """

    records: Sequence[Any]
    received: int
    total: int | None
    request: Mapping[str, Any]
    shards: int | None = None
    shard: str | None = None
    sharding: str | None = None
    misfits: Sequence[Misfit] | None = None
    untried: str | None = None


async def preview(source: Source, params: Mapping[str, object], *, rows: int) -> Preview:
    """Fetch the first page.

    Args:
        source: The source.
        params: Its parameters, as given.
        rows: How many records to keep; paging that can be split asks for no more than these.

    Raises:
        ValidationFailed: Parameters or the connection have faults.
        CollectOpsError: The request failed.
    """
    from collect_ops.cli.output import print_error
    from collect_ops.collectors.credentials import short_secrets
    from collect_ops.collectors.http import HttpCollector
    from collect_ops.collectors.page import Span
    from collect_ops.sources.request import render

    request = render(source, params)
    endpoint = endpoint_of(source)
    for warning in short_secrets(endpoint, source.connection):
        print_error(f"warning: {warning}")
    splits = isinstance(source.paging, OffsetPaging | PagePaging)
    async with HttpCollector(source, request, endpoint) as collector:
        told, own = await first_shard(source, params, collector)
        if own is None and told.shards == 0:
            return told
        by_count = isinstance(source.shards, CountShards)
        counted_apart = isinstance(source.total, RequestTotal) and by_count
        size = min(rows, source.page_size or source.batch_size) if splits and by_count else None
        async with contextlib.aclosing(collector.pages(Span(offset=0, size=size), None, own)) as pages:
            async for page in pages:
                misfits, untried = await misfits_of(source, page.records, collector)
                return replace(
                    told,
                    misfits=misfits,
                    untried=untried,
                    records=collector.masked(page.records[:rows]),
                    received=len(page.records),
                    total=await collector.total() if counted_apart else page.total or told.total,
                    request=page.request,
                )
    return told


async def misfits_of(
    source: Source, records: Sequence[Any], collector: HttpCollector
) -> tuple[list[Misfit] | None, str | None]:
    """What of a page does not fit the declared types, cast as landing casts; or None, and why nobody can say."""
    import os

    from collect_ops.landing.bad_row_texts import cut_reason
    from collect_ops.landing.trial import try_casts
    from collect_ops.storage import DatabaseUnavailable, connect_async, errors

    dsn = os.environ.get("COLLECT_POSTGRES_DSN")
    if not dsn:
        return None, "COLLECT_POSTGRES_DSN is not set (`make env` prints it), and PostgreSQL does the casts"
    try:
        async with await connect_async(dsn, application_name="collect-ops preview") as connection:
            misfits = await try_casts(connection, source.target, records)
        shown = [
            replace(
                each, value=collector.masked(each.value), problem=collector.masked(cut_reason(each.problem))
            )
            for each in misfits
        ]
        return shown, None
    except (DatabaseUnavailable, errors.Error) as error:
        # PostgreSQL may quote a row.
        return None, collector.excerpt(" ".join(str(error).split()))


def misfit_lines(misfits: Sequence[Misfit], *, most: int = 3) -> list[str]:
    """A line a column: how many rows do not fit it, and some of their values."""
    by_column: dict[tuple[str | None, str | None], list[Misfit]] = {}
    for each in misfits:
        by_column.setdefault((each.column, each.type), []).append(each)
    lines = []
    for (column, kind), found in by_column.items():
        rows = f"{len(found):,} row{'s' if len(found) > 1 else ''}"
        if column is None:
            problems = "; ".join(dict.fromkeys(each.problem for each in found[:most]))
            lines.append(f"{rows} cannot be a row: {problems}")
            continue
        values = ", ".join(dict.fromkeys(f"{each.value}" for each in found[: 10 * most]))
        lines.append(f"{column}: {rows} not {kind}: {values[:200]} ({found[0].problem})")
    return lines


async def first_shard(
    source: Source, params: Mapping[str, object], collector: HttpCollector
) -> tuple[Preview, RenderedRequest | None]:
    """What a task would be cut into, and the request of its first shard where that is one of its own."""
    from collect_ops.execution.cutting import CutTask, cut
    from collect_ops.execution.rules import sharding_rules
    from collect_ops.execution.sizing import History
    from collect_ops.sources.request import check_params, render

    if isinstance(source.shards, CountShards):
        return Preview(records=(), received=0, total=None, request={}), None
    checked = check_params(source, params)
    task = CutTask(source=source, params=checked, history=History(), target_s=sharding_rules().target_s)
    parts = await cut(task, collector)
    told = Preview(
        records=(),
        received=0,
        total=parts.total,
        request={},
        shards=len(parts.shards),
        sharding=collector.masked(parts.why),
    )
    if not parts.shards:
        return told, None
    first = parts.shards[0]
    own = render(source, {**checked, **(first.params or {})})
    return replace(told, shard=collector.masked(first.label)), own


def cells(source: Source, records: Sequence[Any]) -> tuple[list[str], list[list[object]]]:
    """Headings and rows of a table: the declared columns, or what the records hold at their top level."""
    columns = source.target.columns
    objects = [record for record in records if isinstance(record, Mapping)]
    if columns and objects:
        from collect_ops.sources.expressions import compiled

        paths = {name: compiled(column.path) for name, column in columns.items() if column.path}
        rows = [
            [_cell(paths[name].search(one) if name in paths else one.get(name)) for name in columns]
            for one in objects
        ]
        return [f"{name}\n{column.type}" for name, column in columns.items()], rows
    names = list(dict.fromkeys(name for one in objects for name in one))
    if names:
        return names, [[_cell(one.get(name)) for name in names] for one in objects]
    return ["record"], [[_cell(record)] for record in records]


def _cell(value: object) -> object:
    if isinstance(value, SpelledNumber):
        return value.text
    if not isinstance(value, dict | list | bool):
        return value
    try:
        return json_bytes(value).decode()
    except Unwritable:
        return json.dumps(value, ensure_ascii=False)
