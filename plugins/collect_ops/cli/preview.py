"""The first page of a source, as it would be collected."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.sources.model import AuthType, CountShards, OffsetPaging, PagePaging, RequestTotal, Source

if TYPE_CHECKING:
    from collect_ops.collectors.endpoint import Endpoint
    from collect_ops.collectors.http import HttpCollector
    from collect_ops.sources.request import RenderedRequest

_REDACTED = "***"


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
    """

    records: Sequence[Any]
    received: int
    total: int | None
    request: Mapping[str, Any]
    shards: int | None = None
    shard: str | None = None
    sharding: str | None = None


def endpoint_of(source: Source) -> Endpoint:
    """Where the source's requests go.

    `AIRFLOW_CONN_<CONNECTION>` (Airflow's JSON form) wins. Without it Airflow's REST API is asked, which
    tells everything but passwords: enough for a source without authentication.

    Raises:
        ValidationFailed: Neither has it, or the password is needed and only Airflow knows it.
    """
    from collect_ops.collectors.endpoint import Endpoint
    from collect_ops.lanes.rest_runs import RestRuns

    variable = f"AIRFLOW_CONN_{source.connection.upper()}"
    text = os.environ.get(variable)
    if text is not None:
        return Endpoint.from_connection_json(text, connection=source.connection)
    if not os.environ.get("COLLECT_AIRFLOW_URL"):
        problem = (
            f"is not set. Set it to the connection as JSON ({_example(source)}), "
            "or let Airflow's REST API be asked: "
            'eval "$(make -s env)"'
        )
        raise ValidationFailed("environment", [Fault(field=variable, value=None, problem=problem)])
    fields = dict(RestRuns.from_environment().connection(source.connection))
    needs_secret = source.auth.type is not AuthType.NONE
    if needs_secret or _REDACTED in str(fields.get("extra")):
        problem = (
            f"is not set, and connection {source.connection} holds secrets that the request needs "
            f"(auth.type {source.auth.type}), which Airflow's REST API does not tell. "
            f"Set the variable to the connection as JSON: {_example(source)}"
        )
        raise ValidationFailed("environment", [Fault(field=variable, value=None, problem=problem)])
    return Endpoint.from_mapping(fields | {"password": None}, connection=source.connection)


def _example(source: Source) -> str:
    fields: dict[str, Any] = {"conn_type": "http", "host": "https://api.example.com"}
    if source.auth.type is not AuthType.NONE:
        fields |= {"login": "…"} if source.auth.type in (AuthType.BASIC, AuthType.OAUTH2) else {}
        fields |= {"password": "…"}
    if source.auth.type is AuthType.OAUTH2 and source.auth.token_url is None:
        fields |= {"extra": {"token_url": "https://login.example.com/oauth/token"}}
    return json.dumps(fields, ensure_ascii=False)


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
        told, own = await _first_shard(source, params, collector)
        if own is None and told.shards == 0:
            return told
        by_count = isinstance(source.shards, CountShards)
        counted_apart = isinstance(source.total, RequestTotal) and by_count
        size = min(rows, source.page_size or source.batch_size) if splits and by_count else None
        async with contextlib.aclosing(collector.pages(Span(offset=0, size=size), None, own)) as pages:
            async for page in pages:
                return replace(
                    told,
                    records=collector.masked(page.records[:rows]),
                    received=len(page.records),
                    total=await collector.total() if counted_apart else page.total or told.total,
                    request=page.request,
                )
    return told


async def _first_shard(
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
        records=(), received=0, total=parts.total, request={}, shards=len(parts.shards), sharding=parts.why
    )
    if not parts.shards:
        return told, None
    first = parts.shards[0]
    own = render(source, {**checked, **(first.params or {})})
    return replace(told, shard=first.label), own


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
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else value
