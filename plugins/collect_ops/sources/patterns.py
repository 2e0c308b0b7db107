"""Regular expressions that the values of parameters must match. No value and no pattern holds a process up.

Python's engine tries again and again: `(a+)+` on 28 letters takes seconds, on 40 hours. Rust's, which comes with
pydantic, does not, and knows neither look-around nor back-references. So a pattern is given to Rust's when both engines
mean the same by it, and to Python's when it is proven to take few steps on a value of that length. Whatever is left is
matched in a process of its own, which is ended when it takes too long: both engines hold the interpreter meanwhile.
"""

from __future__ import annotations

import marshal
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

from collect_ops.sources.backtracking import most_steps, parts_of

#: Characters of a pattern that is declared.
MAX_CHARS: Final = 1000
#: Characters of a value that any pattern is tried on.
MAX_VALUE: Final = 100_000
#: Seconds for a pattern that may take for ever.
PATIENCE_S: Final = 2.0

# Steps that are taken where the pattern is asked for, at most: 20 ms with Python's engine. Rust's takes a step for each
# character of the value and of the pattern written out: 0.2 s.
_PYTHON_STEPS = 2_000_000
_LINEAR_STEPS = 2_000_000
# A pattern that is declared is matched in fewer steps than this on an ordinary value: about what `PATIENCE_S` is enough
# for.
_MAX_DECLARED_STEPS = 1e9
_ORDINARY_VALUE = 256

# What a pattern may expand to before Python's engine is preferred, if it needs few steps: Rust's takes 0.2 s to compile
# that, and 0.6 s for the largest one that it takes. Units are characters; a class such as \w has hundreds of ranges.
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
        parsed: What Python's parser makes of it.
        cost: How many characters it has when its repetitions are written out.
    """

    linear: SchemaValidator | None
    python: re.Pattern[str]
    parsed: Any
    cost: int


def matches(pattern: str, value: str) -> bool:
    """Whether a whole value matches a pattern.

    Raises:
        PatternTooSlow: The value is too long for this pattern, or took too long.
    """
    if len(value) > MAX_VALUE:
        raise PatternTooSlow(f"must have at most {MAX_VALUE} characters: it has a pattern")
    compiled = _compiled(pattern)
    if compiled.linear is not None and compiled.cost * len(value) <= _LINEAR_STEPS:
        return compiled.linear.isinstance_python(value)
    if most_steps(compiled.parsed, len(value)) <= _PYTHON_STEPS:
        return compiled.python.fullmatch(value) is not None
    return _matches_apart(pattern, value, linear=compiled.linear is not None)


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
    if compiled.linear is None and most_steps(compiled.parsed, _ORDINARY_VALUE) > _MAX_DECLARED_STEPS:
        return (
            "may take for ever: it repeats what can match in several ways itself, or has many such parts in a row, and "
            "is not for the engine that bears that (no look-around, no back-references, no Python-only syntax)"
        )
    return None


def slow_warning(pattern: str) -> str | None:
    """What people should know of a pattern that is taken."""
    if _compiled(pattern).linear is not None:
        return None
    return (
        "is matched by Python's engine: look-around, back-references, large repetitions of classes and syntax of "
        f"Python's alone are not for the linear one. A long value may be given up after {PATIENCE_S:g} s"
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
        is_for_python = cost > _MAX_COST and most_steps(parsed, _ORDINARY_VALUE) <= _PYTHON_STEPS
        linear = None if is_for_python else _linear(pattern)
        return _Compiled(linear=linear, python=python, parsed=parsed, cost=cost)
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
    schema = core_schema.str_schema(pattern=_whole(pattern), regex_engine="rust-regex", strict=True)
    try:
        return SchemaValidator(schema)
    except SchemaError:
        return None


def _whole(pattern: str) -> str:
    """A pattern of Rust's that the whole value must match."""
    return rf"\A(?:{pattern})\z"


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
    return max(1, sum(map(_cost, parts_of(argument))))


_REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)


_MATCHES, _MISSES = 10, 11  # Python itself ends with 1 and 2
_PYTHON_PROGRAM = f"""
import marshal, re, sys
pattern, value = marshal.load(sys.stdin.buffer)
sys.exit({_MISSES} if re.fullmatch(pattern, value) is None else {_MATCHES})
"""
_LINEAR_PROGRAM = f"""
import marshal, sys
from pydantic_core import SchemaValidator, core_schema
pattern, value = marshal.load(sys.stdin.buffer)
schema = core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True)
sys.exit({_MATCHES} if SchemaValidator(schema).isinstance_python(value) else {_MISSES})
"""


def _matches_apart(pattern: str, value: str, *, linear: bool) -> bool:
    """Only a process can be stopped while it matches: either engine holds the interpreter."""
    program = _LINEAR_PROGRAM if linear else _PYTHON_PROGRAM
    options = ["-I", "-c"] if linear else ["-I", "-S", "-c"]  # pydantic is a package of the site
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and program
            [sys.executable, *options, program],
            input=marshal.dumps((_whole(pattern) if linear else pattern, value)),
            check=False, capture_output=True, timeout=PATIENCE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise PatternTooSlow(f"takes more than {PATIENCE_S:g} s to be matched with its pattern") from error
    if done.returncode not in (_MATCHES, _MISSES):
        raise RuntimeError(f"matching a pattern apart ended with {done.returncode}: {done.stderr[-300:]!r}")
    return done.returncode == _MATCHES
