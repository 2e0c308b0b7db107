"""What paging, totals and ends demand of a source, and how a source's paging can be split. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from collect_ops.kernel.errors import Fault
from collect_ops.sources import expressions
from collect_ops.sources.condition_rules import condition_faults
from collect_ops.sources.model import (
    PAGING_PARAMS,
    OffsetPaging,
    PagePaging,
    Paging,
    Source,
    body_names_in_files,
)

#: Statuses by which a source may say that there are no more rows; the others mean something else, and never that.
_NEVER_AN_END = frozenset({401, 403, 407, 408, 425, 429})


def can_be_split(source: Source) -> bool:
    """Whether a range of rows can be asked for by arithmetic alone.

    Page N begins nowhere known while nobody knows how many rows a page has.
    """
    paging = source.paging
    if isinstance(paging, PagePaging):
        return paging.size_param is not None or source.page_size is not None
    return isinstance(paging, OffsetPaging)


def counts_rows(paging: Paging) -> bool:
    """Whether a page is asked for by a count of rows or pages, and not by what stands in the page before it."""
    return isinstance(paging, OffsetPaging | PagePaging)


def nested_path(paging: Paging, name: str) -> tuple[str, ...]:
    """Where a parameter stands in a body: the keys that lead to it."""
    nested = getattr(paging, "body_names", "flat") == "nested"
    return tuple(name.split(".")) if nested else (name,)


def nested_name_faults(source: Source) -> Iterator[Fault]:
    """Names with dots: where each part is a key, and every key but the last leads to an object."""
    paging = source.paging
    # A file is looked at as it was written: what it means by leaving the field out is not in it yet.
    declared = "body_names" in paging.model_fields_set
    if (getattr(paging, "body_names", None) if declared else body_names_in_files(paging)) != "nested":
        return
    if getattr(paging, "location", "query") != "body":
        yield Fault(field="paging.body_names", value="nested", problem="needs paging.location body")
        return
    for field in PAGING_PARAMS:
        name = getattr(paging, field, None)
        if name is None:
            continue
        if not all(name.split(".")):
            problem = "holds an empty part between its dots (paging.body_names: flat takes a name as it is)"
            yield Fault(field=f"paging.{field}", value=name, problem=problem)
            continue
        yield from _body_faults(source, field, name.split("."))


def _body_faults(source: Source, field: str, path: list[str]) -> Iterator[Fault]:
    value: Any = source.request.body
    for depth, key in enumerate(path):
        if value is None:
            return
        if not isinstance(value, dict):
            here = ".".join(("request.body", *path[:depth]))
            problem = f"must be an object: paging.{field} writes {key} into it"
            yield Fault(field=here, value=value, problem=problem)
            return
        value = value.get(key)
    if value is not None and len(path) > 1:
        yield Fault(field=".".join(("request.body", *path)), value=value, problem="is written by paging")


def advance_faults(source: Source) -> Iterator[Fault]:
    """Going on by page sizes needs one that is known."""
    paging = source.paging
    if not isinstance(paging, OffsetPaging | PagePaging) or paging.advance_by == "rows":
        return
    size_param = paging.limit_param if isinstance(paging, OffsetPaging) else paging.size_param
    if size_param is None and source.page_size is None:
        problem = "needs page_size: no parameter says how many rows a page has"
        yield Fault(field="paging.advance_by", value=paging.advance_by, problem=problem)


def counted_records_faults(source: Source) -> Iterator[Fault]:
    """Counted paging goes on by what the server sent, so `records` must not leave out or multiply anything."""
    if counts_rows(source.paging) and not expressions.keeps_count(source.records):
        problem = (
            f"leaves records out or multiplies them, and paging by {source.paging.type} goes on by their number: name "
            "the list as the server sends it here, and what to keep of it in `select`"
        )
        yield Fault(field="records", value=source.records, problem=problem)


def end_faults(source: Source) -> Iterator[Fault]:
    """Which answers may mean the end."""
    yield from condition_faults("end", source.end)
    for index, condition in enumerate(source.end):
        for status in condition.status:
            if status in _NEVER_AN_END or status >= 500:
                problem = (
                    "never means that there are no more rows; allowed are 200 to 299, 400, 404, 409 to 424"
                )
                yield Fault(field=f"end.{index}.status", value=status, problem=problem)
