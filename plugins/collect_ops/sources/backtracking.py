"""How many steps Python's engine takes at most to match a regular expression: a proof, not a guess. Pure.

It tries one way after the other. So what counts is in how many ways each part can match from one place: the ways of
parts that follow each other multiply, and so do those of repetitions. The bound is never too small. It may be far too
large, for it does not see that two parts exclude each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any, Final

# From here on it does not matter how many more.
_ENDLESS: Final = 1e30
# Members of a set that are looked at in one step.
_MEMBERS_A_STEP: Final = 8
# Groups that are saved in one step before each repetition.
_GROUPS_A_STEP: Final = 8

_REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)
_SINGLE = (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.AT, sre.CATEGORY, sre.FAILURE)


def most_steps(parsed: Any, chars: int) -> float:
    """The most steps that matching takes, infinite when there is no bound that anybody could wait for.

    Args:
        parsed: The pattern as `re` parses it.
        chars: How long the value is.
    """
    try:
        steps = _sequence(parsed, chars).steps
    except RecursionError:
        return inf
    groups: int = parsed.state.groups
    return steps * (1 + groups // _GROUPS_A_STEP)


@dataclass(frozen=True, slots=True)
class _Effort:
    """What a part costs that is tried from one place.

    Args:
        ways: In how many ways it can match, one at least.
        steps: How many steps it takes to try all of them.
    """

    ways: float
    steps: float


def _sequence(parsed: Any, chars: int) -> _Effort:
    ways, steps = 1.0, 1.0
    for operator, argument in parsed:
        part = _part(operator, argument, chars)
        steps += ways * part.steps
        ways *= part.ways
        if steps > _ENDLESS:
            return _Effort(inf, inf)
    return _Effort(ways, steps)


def _part(operator: Any, argument: Any, chars: int) -> _Effort:  # noqa: PLR0911 - one for each kind of part
    if operator in _SINGLE:
        return _Effort(1, 1)
    if operator is sre.IN:
        return _Effort(1, 1 + len(argument) // _MEMBERS_A_STEP)
    if operator in _REPEATS:
        return _repetition(operator, argument, chars)
    if operator is sre.GROUPREF:
        return _Effort(1, 1 + chars)
    inner = [_sequence(each, chars) for each in parts_of(argument)]
    steps = 1 + sum(each.steps for each in inner)
    if operator in (sre.ASSERT, sre.ASSERT_NOT, sre.ATOMIC_GROUP):
        return _Effort(1, steps)  # once it has matched, its other ways are not tried
    if operator is sre.BRANCH and _exclude_each_other(argument[1]):
        return _Effort(max(each.ways for each in inner), steps)
    if operator in (sre.SUBPATTERN, sre.BRANCH, sre.GROUPREF_EXISTS):
        # One more for the alternative of GROUPREF_EXISTS that is not there.
        return _Effort(sum(each.ways for each in inner) + (operator is sre.GROUPREF_EXISTS), steps)
    return _Effort(inf, inf)  # an operator of a newer Python


def _repetition(operator: Any, argument: Any, chars: int) -> _Effort:
    least, most, repeated = argument
    body = _sequence(repeated, chars)
    shortest = repeated.getwidth()[0]
    # One that matches nothing is repeated as often as it must be, and once more at each place.
    times = min(most, chars // shortest if shortest else least + chars + 2)
    if operator is sre.POSSESSIVE_REPEAT:
        return _Effort(1, (1 + times) * body.steps)
    if body.ways == 1:
        return _Effort(max(1, 1 + times - least), (1 + times) * body.steps)
    paths, ways, steps = 1.0, 0.0, 0.0
    for time in range(times + 1):
        steps += paths * body.steps
        ways += paths * (time >= least)
        paths *= body.ways
        if steps > _ENDLESS:
            return _Effort(inf, inf)
    return _Effort(max(1.0, ways), steps)


def _exclude_each_other(alternatives: Sequence[Any]) -> bool:
    """Whether at most one of the alternatives can match: each begins with another letter, whatever the case."""
    firsts = [each[0] if len(each) else None for each in alternatives]
    letters = {chr(first[1]).lower() for first in firsts if first is not None and _is_ascii_literal(*first)}
    return len(letters) == len(alternatives)


def _is_ascii_literal(operator: Any, argument: Any) -> bool:
    # Beyond ASCII there are letters with more than two forms.
    return operator is sre.LITERAL and argument < 128


def parts_of(argument: Any) -> Iterator[Any]:
    """The parsed patterns within an operator's argument."""
    if isinstance(argument, sre_parser.SubPattern):
        yield argument
    elif isinstance(argument, list | tuple):
        for each in argument:
            yield from parts_of(each)
