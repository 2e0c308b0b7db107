"""What is refused when a source file is loaded, and nowhere else.

Stored declarations were checked when they were loaded: what is refused here never ends a task that is under way. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from collect_ops.kernel.errors import Fault
from collect_ops.sources.model import Disposition, Source


def refusals_of(source: Source) -> Iterator[Fault]:
    """What is wrong with a source whose fields all hold."""
    yield from _replace_when_replaces(source)


def _replace_when_replaces(source: Source) -> Iterator[Fault]:
    target = source.target
    if target.replace_when != "complete" and target.disposition is not Disposition.REPLACE:
        problem = f"is for disposition replace only, not for {target.disposition}"
        yield Fault(field="target.replace_when", value=target.replace_when, problem=problem)
