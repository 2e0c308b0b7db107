"""Regular expressions that the values of parameters must match: matched in time that grows with the value alone. Pure.

Python's engine tries again and again: `(a+)+` on 28 letters takes seconds, on 40 hours. Rust's, which comes with
pydantic, does not, and knows neither look-around nor back-references. So a pattern is given to Rust's when both engines
mean the same by it; the others stay with Python's, for short values only, and a pattern that could be slow even for
those is tried in a process that is ended when it takes too long.
"""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any, Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

#: Characters of a pattern that is declared.
MAX_CHARS: Final = 1000
#: Characters of a value that a pattern outside of Rust's language is tried on.
MAX_SLOW_VALUE: Final = 256
#: Characters of a value that any pattern is tried on.
MAX_VALUE: Final = 100_000
#: Seconds for a pattern that may take for ever.
PATIENCE_S: Final = 2.0

# What a pattern may expand to before Rust's engine is asked; it takes 0.2 s to compile that, and refuses ten times as
# much. Units are characters; a class such as \w has hundreds of ranges.
_MAX_COST = 5000
_CLASS_COST = 40
#: A pattern that is declared may not expand to more than this, whichever engine it is for.
_MAX_DECLARED_COST = 200_000
# What compiles in both and means something else: [[:alpha:]], [a&&b], [a--b], [a~~b], \< and \>, \b{start}, and blanks
# within a class of a verbose pattern.
_AMBIGUOUS = re.compile(r"\[\^?\[|\[:|&&|--|~~|\\[<>]|\\[bB]\{|\(\?[a-zA-Z]*x")


class PatternTooSlow(ValueError):
    """A value cannot be tried; says why, as half a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    """A pattern for both engines.

    Args:
        linear: Rust's, None when the pattern is not for it.
        python: Python's.
        endless: Whether Python's may take for ever.
        cost: How many characters it has when its repetitions are written out.
    """

    linear: SchemaValidator | None
    python: re.Pattern[str]
    endless: bool
    cost: int


def matches(pattern: str, value: str) -> bool:
    """Whether a whole value matches a pattern.

    Raises:
        PatternTooSlow: The value is too long for this pattern, or took too long.
    """
    compiled = _compiled(pattern)
    limit = MAX_VALUE if compiled.linear is not None else MAX_SLOW_VALUE
    if len(value) > limit:
        raise PatternTooSlow(f"must have at most {limit} characters: it has a pattern")
    if compiled.linear is not None:
        return compiled.linear.isinstance_python(value)
    if compiled.endless:
        return _matches_apart(pattern, value)
    return compiled.python.fullmatch(value) is not None


def pattern_problem(pattern: str) -> str | None:
    """Why a text is not a regular expression."""
    try:
        _compiled(pattern)
    except ValueError as error:
        return f"is not a regular expression: {error}"
    return None


def unbounded_problem(pattern: str) -> str | None:
    """Why a pattern is not taken from a declaration, although it is one."""
    if len(pattern) > MAX_CHARS:
        return f"must have at most {MAX_CHARS} characters, has {len(pattern)}"
    try:
        compiled = _compiled(pattern)
    except ValueError:
        return None  # `pattern_problem` says so
    if compiled.cost > _MAX_DECLARED_COST:
        return "repeats too much: written out it would have hundreds of thousands of characters"
    if compiled.linear is None and compiled.endless:
        return (
            "may take for ever: it repeats what is repeated or optional itself, and is not for the engine that bears "
            "that (no look-around, no back-references, no Python-only syntax)"
        )
    return None


def slow_warning(pattern: str) -> str | None:
    """What people should know of a pattern that is taken."""
    if _compiled(pattern).linear is not None:
        return None
    return (
        f"is matched by Python's engine, on values of at most {MAX_SLOW_VALUE} characters: look-around, "
        "back-references, large repetitions of classes and syntax of Python's alone are not for the linear one"
    )


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> _Compiled:
    """The pattern.

    Raises:
        ValueError: It is none.
    """
    try:
        with _no_warnings(pattern):
            parsed, python = _parse(pattern), re.compile(pattern)
        cost = _cost(parsed)
        linear = _linear(pattern) if cost <= _MAX_COST else None
        return _Compiled(linear=linear, python=python, endless=_may_be_endless(parsed), cost=cost)
    except re.error as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except OverflowError as error:
        raise ValueError("a number in it is too large") from error


def _parse(pattern: str) -> Any:
    return sre_parser.parse(pattern)


@contextmanager
def _no_warnings(pattern: str) -> Iterator[None]:
    """Python warns of what may once mean something else. Its filters are the process's: touched where need be."""
    if _AMBIGUOUS.search(pattern) is None:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _linear(pattern: str) -> SchemaValidator | None:
    if _AMBIGUOUS.search(pattern):
        return None
    schema = core_schema.str_schema(pattern=rf"\A(?:{pattern})\z", regex_engine="rust-regex", strict=True)
    try:
        return SchemaValidator(schema)
    except SchemaError:
        return None


def _cost(parsed: Any) -> int:
    """How many characters a parsed pattern has when its repetitions are written out."""
    return sum(_item_cost(operator, argument) for operator, argument in parsed)


def _item_cost(operator: Any, argument: Any) -> int:
    if operator in _REPEATS:
        _, most, repeated = argument
        return max(1, most if most is not sre.MAXREPEAT else 1) * max(1, _cost(repeated))
    if operator is sre.IN:
        return max((_CLASS_COST if kind is sre.CATEGORY else 1 for kind, _ in argument), default=1)
    if operator is sre.CATEGORY:
        return _CLASS_COST
    return max(1, sum(map(_cost, _parts(argument))))


_REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)


def _may_be_endless(parsed: Any) -> bool:
    """Whether trying all ways to match may take for ever.

    That is so with something of varying length within what repeats without end, and with more than a few repetitions
    without end one after the other.
    """
    return _endless_within(parsed) or _endless_repeats(parsed) > _MAX_IN_A_ROW


#: Repetitions without end that 256 characters bear: 256 ** 3 ways.
_MAX_IN_A_ROW = 3


def _endless_within(parsed: Any) -> bool:
    for operator, argument in parsed:
        if operator in _REPEATS and argument[1] is sre.MAXREPEAT:
            least, most = argument[2].getwidth()
            if least != most or _alternates(argument[2]):
                return True
        if any(map(_endless_within, _parts(argument))):
            return True
    return False


def _alternates(parsed: Any) -> bool:
    """Whether there are two ways to match the same: alternatives in a repetition."""
    return any(
        operator is sre.BRANCH or any(map(_alternates, _parts(argument))) for operator, argument in parsed
    )


def _endless_repeats(parsed: Any) -> int:
    return sum(
        int(operator in _REPEATS and argument[1] is sre.MAXREPEAT)
        # Look-around is tried once wherever it stands: what is in it does not multiply with what follows.
        + max([0, *map(_endless_repeats, _parts(argument))]) * (operator not in (sre.ASSERT, sre.ASSERT_NOT))
        for operator, argument in parsed
    )


def _parts(argument: Any) -> Iterator[Any]:
    """The parsed patterns within an operator's argument."""
    if isinstance(argument, sre_parser.SubPattern):
        yield argument
    elif isinstance(argument, list | tuple):
        for each in argument:
            yield from _parts(each)


_PROGRAM = "import re, sys; sys.exit(re.fullmatch(sys.argv[1], sys.argv[2]) is None)"


def _matches_apart(pattern: str, value: str) -> bool:
    """Only a process can be stopped while it matches: Python's engine holds the interpreter."""
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, and what follows are arguments
            [sys.executable, "-I", "-S", "-c", _PROGRAM, pattern, value],
            check=False, capture_output=True, timeout=PATIENCE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise PatternTooSlow(f"takes more than {PATIENCE_S:g} s to be matched with its pattern") from error
    if done.returncode not in (0, 1):
        raise RuntimeError(f"matching a pattern apart ended with {done.returncode}: {done.stderr[-300:]!r}")
    return done.returncode == 0
