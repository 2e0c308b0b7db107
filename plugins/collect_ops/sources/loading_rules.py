"""What is demanded of a declaration when its file is loaded, and of nothing that was stored before. Pure.

The model reads what tasks were admitted with, years ago perhaps: a rule that is added there would end tasks that are
under way. So what is refused from now on is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from collect_ops.kernel.errors import Fault
from collect_ops.sources import bounds, expressions, patterns
from collect_ops.sources.body_rules import body_faults, redirected_post_faults
from collect_ops.sources.condition_rules import retry_when_faults
from collect_ops.sources.model import Disposition, Source
from collect_ops.sources.paging_rules import (
    advance_faults,
    counted_records_faults,
    end_faults,
    nested_name_faults,
)
from collect_ops.sources.rules import RULES, Rule
from collect_ops.sources.texts import climbing_problem, schedule_never_problem

_EXPRESSIONS = (
    "records", "select", "paging.cursor", "paging.next_url", "total.value", "shards.range.low", "shards.range.high",
)  # fmt: skip
_PATHS = ("request.path", "shards.range.path")


def _text_faults(source: Source, *, field: str, problem_of: Callable[[str], str | None]) -> Iterator[Fault]:
    text = bounds.value_at(source, field)
    if isinstance(text, str) and (problem := problem_of(text)):
        yield Fault(field=field, value=text, problem=problem)


def _total_path_faults(source: Source) -> Iterator[Fault]:
    """`total.path` is a request's path, or an expression."""
    is_path = source.total.type == "request"
    problem_of = climbing_problem if is_path else expressions.unbounded_problem
    yield from _text_faults(source, field="total.path", problem_of=problem_of)


def _column_faults(source: Source) -> Iterator[Fault]:
    for name, column in source.target.columns.items():
        if column.path is not None and (problem := expressions.unbounded_problem(column.path)):
            yield Fault(field=f"target.columns.{name}.path", value=column.path, problem=problem)


def _pattern_faults(source: Source) -> Iterator[Fault]:
    for name, param in source.request.params.items():
        if param.pattern is not None and (problem := patterns.unbounded_problem(param.pattern)):
            yield Fault(field=f"request.params.{name}.pattern", value=param.pattern, problem=problem)


def _replace_when_faults(source: Source) -> Iterator[Fault]:
    target = source.target
    if target.replace_when != "complete" and target.disposition is not Disposition.REPLACE:
        problem = f"is for disposition replace only, not for {target.disposition}"
        yield Fault(field="target.replace_when", value=target.replace_when, problem=problem)


def _scheduled_faults(source: Source) -> Iterator[Fault]:
    """A scheduled run gives no parameters: what needs one can only be submitted."""
    for name, param in source.request.params.items():
        field = f"request.params.{name}"
        relative = param.relative_default
        if source.schedule is not None and param.required:
            problem = "cannot be true beside schedule: a scheduled run gives no parameters; declare a default instead"
            yield Fault(field=f"{field}.required", value=True, problem=problem)
        elif source.schedule is None and relative is not None and relative.needs_schedule:
            problem = "needs a schedule: only what is scheduled has a data interval"
            yield Fault(field=f"{field}.default", value=param.default, problem=problem)


LOADING_RULES: tuple[Rule, ...] = (
    # First, since a list that is too long has too many other faults.
    *(Rule(reads=(field,), faults=partial(bounds.length_faults, field=field)) for field in bounds.LENGTHS),
    Rule(reads=("request.params",), faults=bounds.allowed_faults),
    *RULES,
    *(Rule(reads=(field,), faults=partial(bounds.number_faults, field=field)) for field in bounds.NUMBERS),
    Rule(
        reads=("request.query", "request.body", "total", "shards", "dedup.identity"),
        faults=bounds.free_number_faults,
    ),
    *(
        Rule(
            reads=(field,),
            faults=partial(_text_faults, field=field, problem_of=expressions.unbounded_problem),
        )
        for field in _EXPRESSIONS
    ),
    *(
        Rule(reads=(field,), faults=partial(_text_faults, field=field, problem_of=climbing_problem))
        for field in _PATHS
    ),
    Rule(reads=("total",), faults=_total_path_faults),
    Rule(reads=("target.columns",), faults=_column_faults),
    Rule(reads=("request.params",), faults=_pattern_faults),
    Rule(reads=("target.replace_when", "target.disposition"), faults=_replace_when_faults),
    Rule(reads=("schedule", "request.params"), faults=_scheduled_faults),
    Rule(
        reads=("request.method", "request.body", "request.body_type", "request.headers"), faults=body_faults
    ),
    Rule(reads=("request.method", "request.redirected_post"), faults=redirected_post_faults),
    Rule(reads=("retry_when",), faults=retry_when_faults),
    Rule(reads=("end",), faults=end_faults),
    Rule(reads=("records", "paging"), faults=counted_records_faults),
    Rule(reads=("paging", "request.body"), faults=nested_name_faults),
    Rule(reads=("paging", "page_size"), faults=advance_faults),
    Rule(
        reads=("schedule",), faults=partial(_text_faults, field="schedule", problem_of=schedule_never_problem)
    ),
)


def warnings_of(source: Source) -> tuple[Fault, ...]:
    """What people should know of a source that is taken as it is."""
    return (*_slow_patterns(source), *_columns_that_lose_digits(source))


def _slow_patterns(source: Source) -> Iterator[Fault]:
    for name, param in source.request.params.items():
        if param.pattern is not None and (warning := patterns.slow_warning(param.pattern)):
            yield Fault(field=f"request.params.{name}.pattern", value=param.pattern, problem=warning)


def _columns_that_lose_digits(source: Source) -> Iterator[Fault]:
    for name, column in source.target.columns.items():
        if column.path is None or not column.type.startswith(_EXACT_TYPES):
            continue
        functions = expressions.calculating_functions(column.path)
        if functions:
            problem = (
                f"{', '.join(functions)} calculates with doubles: numbers of more than 15 digits lose some; a path "
                "without it keeps them all"
            )
            yield Fault(field=f"target.columns.{name}.path", value=column.path, problem=problem)


#: Types that hold more digits than a double.
_EXACT_TYPES = ("numeric", "text", "varchar", "jsonb")
