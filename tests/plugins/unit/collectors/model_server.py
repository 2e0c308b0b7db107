"""A source's server as a function, with quirks, and a task that is collected from it without network or database.

What reads the pages is the collector itself, and what cuts and judges the task is execution's own; only the requests
end in the model, and landing is a list.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from multidict import CIMultiDict

from collect_ops.collectors.answer import Answer, content_of, refusal
from collect_ops.collectors.client import Call, Fetched
from collect_ops.collectors.content import ShardReader
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.errors import CollectorError, EqualPage
from collect_ops.collectors.http import HttpCollector
from collect_ops.collectors.page import Page, Span
from collect_ops.collectors.paging import named_parameter
from collect_ops.collectors.totals import is_at_least
from collect_ops.execution.cutting import CutTask, cut
from collect_ops.execution.policy import Attempt, Outcome, ShardSpan, ShardSums, settle_outcome
from collect_ops.execution.sizing import History
from collect_ops.lanes.rules import RetryRule
from collect_ops.sources.file_defaults import with_file_defaults
from collect_ops.sources.model import Source
from collect_ops.sources.request import render
from collect_ops.tasks.lifecycle import TaskStatus
from tests.factories import source

COUNTED = ("offset", "page")
BY_TOKEN = ("cursor", "next_url", "link_header")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A server, and whether the source declares its quirks.

    Args:
        style: How it pages.
        rows: How many rows it has.
        cap: Rows of a page at most.
        hidden: Ids that the caller may not see: left out of their pages, counted in the total.
        total: What its pages say of the number of rows: `none`, `exact`, `moving` (three more from the second answer
            on), `capped` (at 7, whatever there is), `odd`.
        ignores: It ignores what paging asks for.
        first_offset: The offset of its first row; what is below is taken for it.
        in_pages: An offset means the page of the asked size that it lies in.
        behind: What it answers behind its last row: `empty`, `404`, `last` (its last page).
        turns: By how many rows their order moves on with each answer.
        itself: Its last page names itself as the next one.
        more: What its pages say of further ones: `none`, `true` (the truth), `full` (yes after every full page).
        size: Rows of a page, as the source asks for.
        shard: Rows of a shard.
        declared: Whether the source declares what can be declared of all this.
    """

    style: str
    rows: int
    size: int
    shard: int
    cap: int | None = None
    hidden: frozenset[int] = frozenset()
    total: str = "exact"
    ignores: bool = False
    first_offset: int = 0
    in_pages: bool = False
    behind: str = "empty"
    turns: int = 0
    itself: bool = False
    more: str = "none"
    declared: bool = True

    @property
    def ids(self) -> list[int]:
        """What the caller can see."""
        return [number for number in range(self.rows) if number not in self.hidden]


@dataclass(slots=True, kw_only=True)
class Task:
    """What became of a task."""

    outcome: Outcome
    landed: list[int]
    requests: int

    @property
    def words(self) -> str:
        return self.outcome.reason or ""


@lru_cache(maxsize=8)
def source_of(model: Model) -> Source:
    """The source of a model, as its file means it."""
    paging: dict[str, Any] = {"type": model.style}
    if model.style in BY_TOKEN:
        paging |= {"limit_param": "limit"}
    if model.style in ("cursor", "next_url"):
        paging[model.style] = "next"
    # Only paging by offset or page can be told that pages lack rows which the total counts.
    untold = model.declared and model.hidden and model.style in BY_TOKEN
    total: dict[str, Any] = {"type": "unknown"}
    if model.total != "none" and not untold:
        total = {"type": "body", "path": "total"}
        bounds = {"moving": {"at_least": True}, "capped": {"capped_at": 7}}
        total |= bounds.get(model.total, {}) if model.declared else {}
    end: list[dict[str, Any]] = []
    if model.declared:
        if model.style == "offset":
            paging |= {"first_offset": model.first_offset}
        if model.style in COUNTED and model.hidden:
            paging |= {"advance_by": "page_size"}
        if model.behind == "404":
            end = [{"status": [404]}]
        if model.behind == "last" and model.style in COUNTED:
            paging |= {"equal_pages": "end"}
    # Who goes on by page sizes names one that the server fills: of a page with gaps nothing else tells its size.
    capped = model.cap if model.declared and model.hidden and model.style in COUNTED else None
    size = min(model.size, capped or model.size)
    return with_file_defaults(
        source(
            paging=paging,
            total=total,
            end=end,
            batch_size=model.shard // model.size * size,
            page_size=size,
            limits={"max_empty_pages": 50},
        )
    )


@dataclass(slots=True)
class Server:
    """Answers as a model says."""

    model: Model
    requests: list[Mapping[str, str]] = field(default_factory=list)

    async def fetch(self, call: Call, reader: ShardReader | None = None) -> Fetched:
        """Instead of a client's."""
        await asyncio.sleep(0)
        status, document = self._answer(call.url.query)
        now = time.monotonic()
        answer = Answer(
            status=status,
            headers=CIMultiDict({"Content-Type": "application/json"}),
            links=self._links(document),
            body=orjson.dumps(document),
            wire_bytes=0,
            url=str(call.url),
            shown=str(call.url),
            sent_at=now,
            received_at=now,
            trusted=True,
            quote=lambda text, limit, *, cut=False: text[:limit],
        )
        if status >= 400:
            raise refusal(answer, source_of(self.model), datetime.now(UTC))
        return Fetched(answer=answer, content=content_of(answer, source_of(self.model)), attempts=1)

    def _links(self, document: Any) -> tuple[str, ...]:
        following = document.get("next") if self.model.style == "link_header" else None
        return () if following is None else (f'<{following}>; rel="next"',)

    def _answer(self, query: Mapping[str, str]) -> tuple[int, Any]:
        model = self.model
        self.requests.append(query)
        asked = int(query.get("limit" if model.style != "page" else "size", 10))
        size = asked if model.cap is None else min(asked, model.cap)
        start = 0 if model.ignores else self._start(query, size)
        if start >= model.rows and model.behind == "last" and model.rows:
            start = (model.rows - 1) // size * size
        if start >= model.rows and model.behind == "404" and len(self.requests) > 1:
            return 404, {"error": "nothing there"}
        moved = model.turns * (len(self.requests) - 1)
        numbers = [(number + moved) % model.rows for number in range(start, min(model.rows, start + size))]
        document: dict[str, Any] = {
            "rows": [{"id": n, "name": str(n)} for n in numbers if n not in model.hidden]
        }
        total = self._total()
        if total is not None:
            document["total"] = total
        if model.more != "none":
            document["has_more"] = start + size < model.rows if model.more == "true" else len(numbers) == size
        if model.style in BY_TOKEN:
            document["next"] = self._next(start, size)
        return 200, document

    def _start(self, query: Mapping[str, str], size: int) -> int:
        model = self.model
        if model.style == "offset":
            start = max(0, int(query["offset"]) - model.first_offset)
            return start // int(query["limit"]) * size if model.in_pages else start
        if model.style == "page":
            return (int(query["page"]) - 1) * size
        return int(query.get("cursor", 1)) - 1

    def _total(self) -> Any:
        rows = self.model.rows
        match self.model.total:
            case "moving":
                return rows if len(self.requests) > 1 else max(0, rows - 3)
            case "capped":
                return min(7, rows)
            case "odd":
                return "1,234"
            case "exact":
                return rows
        return None

    def _next(self, start: int, size: int) -> Any:
        after = start + size
        if after >= self.model.rows:
            if not self.model.itself:
                return None
            after = start
        # The first row's cursor is 1: a cursor of 0 would mean the end.
        cursor = after + 1 if not self.model.ignores else len(self.requests) + 1
        return cursor if self.model.style == "cursor" else f"/offset?limit={self.model.size}&cursor={cursor}"


def collect(model: Model) -> Task:
    """Collect a task from a model, shard after shard."""
    return asyncio.run(_collect(model))


async def _collect(model: Model) -> Task:
    declared = source_of(model)
    endpoint = Endpoint(base_url="http://127.0.0.1:9", allow_private_networks=True)
    collector = HttpCollector(declared, render(declared, {}), endpoint)
    server = Server(model)
    collector._client.fetch = server.fetch  # type: ignore[method-assign]
    task = CutTask(source=declared, params={}, history=History(), target_s=20)
    try:
        parts = await cut(task, collector)
    except CollectorError as error:
        return Task(outcome=Outcome(status=TaskStatus.DEAD, reason=str(error)), landed=[], requests=1)
    landing = _Landing(declared)
    for shard in parts.shards:
        await landing.shard(collector, shard)
    return Task(
        outcome=landing.outcome(parts.shards, parts.total), landed=landing.rows, requests=len(server.requests)
    )


@dataclass(slots=True)
class _Landing:
    """What lands, and how far each shard is: a shard run without its database."""

    source: Source
    rows: list[int] = field(default_factory=list)
    prints: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    fetched: int = 0
    named: list[int] = field(default_factory=list)
    errors: list[CollectorError] = field(default_factory=list)

    async def shard(self, collector: HttpCollector, shard: ShardSpan) -> None:
        try:
            async for page in collector.pages(Span(offset=shard.offset, size=shard.size)):
                if self._repeats(page, shard.number, sized=shard.size is not None):
                    return
                self.rows += [record["id"] for record in page.records]
                self.fetched += page.rows
                self.named += [] if page.evident_total is None else [page.evident_total]
        except CollectorError as error:
            self.errors.append(error)

    def _repeats(self, page: Page, shard: int, *, sized: bool) -> bool:
        if page.fingerprint is None:
            return False
        earlier = self.prints.setdefault(page.fingerprint, (shard, page.number))
        if earlier == (shard, page.number):
            return False
        named = page.total is not None and not is_at_least(self.source.total, page.total)
        ends = getattr(self.source.paging, "equal_pages", "") == "end" and not named and not sized
        if ends and earlier == (shard, page.number - 1):
            return True
        raise EqualPage("", named_parameter(self.source.paging), page.number, str(earlier))

    def outcome(self, shards: tuple[ShardSpan, ...], total: int | None) -> Outcome:
        newest = None if not self.named else max(self.named)
        if len(shards) == 1 and self.named:
            newest = self.named[-1]
        first = None
        if self.errors:
            first = {"class": type(self.errors[0]).__name__, "message": str(self.errors[0])}
        totals = [number for number in (total, newest) if number is not None]
        settled = settle_outcome(
            Attempt(
                planned=True,
                retry_count=0,
                max_retries=0,
                lost_count=0,
                named_total=total,
                max_failed_shards=0,
                plan_error=None,
                total_at_least=any(is_at_least(self.source.total, number) for number in totals),
                thinned=getattr(self.source.paging, "advance_by", "rows") == "page_size",
            ),
            ShardSums(
                shards=len(shards),
                done=len(shards) - len(self.errors),
                failed=len(self.errors),
                permanent=len(self.errors),
                rows_fetched=self.fetched,
                source_total=newest,
                retry_after_s=None,
                first_failed=0 if self.errors else None,
                first_error=first,
                by_page=True,
                streams=bool(shards) and all(shard.size is None for shard in shards),
            ),
            RetryRule(base_s=1, jitter=0, max_delay_s=1),
            base_s=None,
            chance=0.0,
        )
        twice = sum(count - 1 for count in Counter(self.rows).values())
        if settled.status is TaskStatus.COMPLETED and twice:
            # What landing counts of every task whose rows have a key.
            return Outcome(status=TaskStatus.PARTIAL, reason=f"{twice} rows were fetched twice")
        return settled
