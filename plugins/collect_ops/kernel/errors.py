"""The errors of collect-ops.

One base class, one class a case. Two mix-ins decide what happens next: what is `Transient` is tried again
(retry queue), what is `Permanent` is not (dead letter). Nowhere is there a list of exception names.
"""

from __future__ import annotations

import difflib
from abc import ABCMeta
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

#: Characters of a faulty value in a message.
_MAX_SHOWN = 500
#: Characters of a word, and known words, that are compared to find what was meant.
_MAX_WORD = 200
_MAX_COMPARED = 1000


class CollectOpsError(Exception):
    """Base of every error that collect-ops raises on purpose."""


class Transient:
    """Mix-in: the same thing may succeed when tried again later."""


class Unanswered(Transient):
    """Mix-in: the other side did not answer at all; whoever asks it next will not be answered either."""


class OwnOutage(Transient, metaclass=ABCMeta):
    """Mix-in: a service of ours did not answer. Nobody has failed: what met it goes on later, and is not counted.

    Errors of drivers that say so are registered as such where the driver is imported.
    """


class Permanent:
    """Mix-in: trying again cannot help; something has to be changed first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing wrong with an input.

    Args:
        field: Where it is, dotted (`request.params.limit.type`).
        value: What stands there, as it was given; None when it is missing.
        problem: What is wrong with it, as half a sentence (`must be 0 to 10`).
        allowed: The values that would do, when they can be listed.
    """

    field: str
    value: object
    problem: str
    allowed: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.field}: {self.problem}"
        if self.value is not None:
            text += f" (got {_shown(self.value)})"
        if self.allowed:
            close = did_you_mean(self.value, self.allowed) if isinstance(self.value, str) else None
            text += f"; allowed: {', '.join(self.allowed)}" + (f"; did you mean {close!r}?" if close else "")
        return text


class ValidationFailed(CollectOpsError, Permanent):
    """An input has faults; all of them are named at once.

    Args:
        subject: What was checked (`source flights`, `submission`).
        faults: What is wrong with it, in the order of the input.
    """

    def __init__(self, subject: str, faults: Iterable[Fault]) -> None:
        self.subject = subject
        self.faults = tuple(faults)
        lines = "".join(f"\n  - {fault}" for fault in self.faults)
        super().__init__(f"{subject}: {len(self.faults)} fault(s){lines}")


def _shown(value: object) -> str:
    """A value's repr, cut to what people read; nothing that can be given makes it fail."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, thousands of levels
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word closest to `word`, or None when none is close (difflib's ratio, at least 0.6).

    A word that nobody types is close to none, and of a list that nobody reads only the beginning is compared: both
    would take minutes.
    """
    if len(word) > _MAX_WORD:
        return None
    found = difflib.get_close_matches(word, islice(known, _MAX_COMPARED), n=1)
    return found[0] if found else None
