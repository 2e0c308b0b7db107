"""What conditions on answers (`retry_when` and the like) must say. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from collect_ops.kernel.errors import Fault
from collect_ops.sources import expressions
from collect_ops.sources.model import Source, When

#: Redirects are followed, and 304 is the answer to a question of ours: no condition ever sees them.
_NEVER_SEEN = frozenset({301, 302, 303, 304, 307, 308})


def condition_faults(field: str, conditions: Sequence[When]) -> Iterator[Fault]:
    """What is wrong with the conditions at a field."""
    for index, condition in enumerate(conditions):
        here = f"{field}.{index}"
        if not condition.headers and condition.body is None and set(condition.status) <= {200}:
            problem = "holds for every page: it must name headers, a body, or a status other than 200"
            yield Fault(field=here, value=list(condition.status), problem=problem)
        for status in _NEVER_SEEN.intersection(condition.status):
            problem = "is never seen: redirects are followed, and 304 means that a page is unchanged"
            yield Fault(field=f"{here}.status", value=status, problem=problem)
        if condition.body is not None and (unbounded := expressions.unbounded_problem(condition.body)):
            yield Fault(field=f"{here}.body", value=condition.body, problem=unbounded)


def retry_when_faults(source: Source) -> Iterator[Fault]:
    """What is wrong with `retry_when`."""
    yield from condition_faults("retry_when", source.retry_when)
