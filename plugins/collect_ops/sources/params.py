"""A request's parameters: their types, and which values fit. Pure.

Values come from YAML, JSON, forms and command lines. A text that reads exactly as the type is taken; nothing
else is guessed. What comes out is canonical, so that equal requests have equal parameters: numbers without a
needless fraction, dates as `2026-01-31`, date-times in UTC as `2026-01-31T00:00:00Z`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import cached_property
from typing import Self

from pydantic import ValidationInfo, model_validator

from collect_ops.kernel.errors import CollectOpsError, Fault, Permanent
from collect_ops.sources.declaration import Declaration, Scalar, misfits, reads_stored
from collect_ops.sources.patterns import PatternTooSlow, matches, pattern_problem, unbounded_problem
from collect_ops.sources.relative import EXAMPLES, Moment, Relative
from collect_ops.sources.templates import text_of

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SURROGATE_OR_NUL = re.compile("[\x00\ud800-\udfff]")
_EXACT_FLOAT = 2**53
_SOME_DAY = datetime(2026, 1, 31, tzinfo=UTC)


class ParamType(StrEnum):
    """Types of a request parameter."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    DATETIME = "datetime"


class Unfit(CollectOpsError, Permanent):
    """A value does not fit its parameter.

    Args:
        problem: What is wrong, as half a sentence.
        allowed: The values that would do, when they can be listed.
    """

    def __init__(self, problem: str, allowed: tuple[str, ...] = ()) -> None:
        self.problem = problem
        self.allowed = allowed
        super().__init__(problem)


class Param(Declaration):
    """A typed parameter of the request; it fills `{name}` in path, query, headers and body."""

    type: ParamType = ParamType.STRING
    """What its values are."""
    default: Scalar = None
    """The value when none is given; without one, whatever names the parameter is left out of the request. Of a date
    or datetime also one that counts from when a task is submitted: today - 1 day, {data_interval_start}."""
    required: bool = False
    """Every submission must give it."""
    allowed: tuple[Scalar, ...] = ()
    """The only values it may have."""
    minimum: float | None = None
    """For integer and number: the least value, inclusive."""
    maximum: float | None = None
    """For integer and number: the greatest value, inclusive."""
    pattern: str | None = None
    """For string: a regular expression that the whole value must match."""
    description: str = ""
    """Shown in forms."""

    @model_validator(mode="after")
    def _fits_itself(self, info: ValidationInfo) -> Self:
        if reads_stored(info):
            return self
        faults = [*_misplaced(self), *_unfit_own_values(self)]
        if faults:
            raise misfits(faults)
        return self

    def coerce(self, value: object) -> Scalar:
        """The canonical value that `value` stands for.

        Raises:
            Unfit: It does not fit the type, or is not allowed.
        """
        fitting = self.canonical(value)
        if self.pattern is not None:
            self._check_pattern(self.pattern, str(fitting))
        return fitting

    def canonical(self, value: object) -> Scalar:
        """`coerce` for a value that was admitted: its pattern is not tried again.

        Whether it matches in time depends on the engine and on how busy the machine is: a task under way must not end
        for that.

        Raises:
            Unfit: It does not fit the type, or is not allowed.
        """
        fitting = _COERCIONS[self.type](value)
        self._check_range(fitting)
        if self.allowed and fitting not in self._allowed_values:
            raise Unfit("is not one of the allowed values", self._allowed_texts)
        return fitting

    @cached_property
    def relative_default(self) -> Relative | None:
        """The default, when it counts from when a task is submitted."""
        return Relative.of(self.default) if self.type in _TIMES else None

    def default_at(self, moment: Moment) -> Scalar:
        """The value when none is given.

        Args:
            moment: What a relative one counts from.

        Raises:
            Unfit: It does not fit the type, or is not allowed.
        """
        relative = self.relative_default
        if relative is None:
            return None if self.default is None else self.coerce(self.default)
        try:
            is_day = self.type is ParamType.DATE
            return self.canonical(relative.as_date(moment) if is_day else relative.value(moment))
        except (OverflowError, ValueError) as error:
            raise Unfit(f"is no moment that a task could ask for: {error}") from error

    def coerce_declared(self, value: object) -> Scalar:
        """`coerce` for a value in the declaration itself: a pattern that is refused anyway is not waited for.

        Raises:
            Unfit: It does not fit the type, or is not allowed.
        """
        is_refused = self.pattern is not None and unbounded_problem(self.pattern) is not None
        return self.canonical(value) if is_refused else self.coerce(value)

    @cached_property
    def _allowed_values(self) -> Mapping[Scalar, None]:
        """In the order of the declaration, canonical."""
        return dict.fromkeys(_COERCIONS[self.type](one) for one in self.allowed)

    @cached_property
    def _allowed_texts(self) -> tuple[str, ...]:
        return tuple(map(text_of, self._allowed_values))

    def _check_pattern(self, pattern: str, value: str) -> None:
        try:
            fits = matches(pattern, value)
        except PatternTooSlow as error:
            raise Unfit(str(error)) from error
        if not fits:
            raise Unfit(f"must match the pattern {pattern}")

    def _check_range(self, value: Scalar) -> None:
        if not isinstance(value, int | float):
            return
        if self.minimum is not None and value < self.minimum:
            raise Unfit(f"must be at least {self.minimum:g}")
        if self.maximum is not None and value > self.maximum:
            raise Unfit(f"must be at most {self.maximum:g}")


def _string(value: object) -> Scalar:
    if not isinstance(value, str):
        raise Unfit("must be text (in YAML: put it in quotes)")
    if _SURROGATE_OR_NUL.search(value):
        raise Unfit("must not hold NUL characters or lone surrogates")
    return value


def _integer(value: object) -> Scalar:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Unfit("must be an integer")
    if not -(2**63) <= value < 2**63:
        raise Unfit("must fit 64 bits")
    return value


def _number(value: object) -> Scalar:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value) if _INTEGER.fullmatch(value) else float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return _integer(value)
    if not isinstance(value, float) or not math.isfinite(value):
        raise Unfit("must be a finite number")
    return int(value) if value.is_integer() and abs(value) <= _EXACT_FLOAT else value


def _boolean(value: object) -> Scalar:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise Unfit("must be true or false")


def _date(value: object) -> Scalar:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError as error:
            raise Unfit(f"is not a day of the calendar: {error}") from error
    raise Unfit("must be a date such as 2026-01-31")


def _datetime(value: object) -> Scalar:
    example = "must be a date and time with an offset, such as 2026-01-31T08:00:00Z"
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError as error:
        raise Unfit(example) from error
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise Unfit(example)
    try:
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError as error:
        raise Unfit("must lie in the years 1 to 9999 in UTC") from error


_TIMES = (ParamType.DATE, ParamType.DATETIME)
_COERCIONS: dict[ParamType, Callable[[object], Scalar]] = {
    ParamType.STRING: _string,
    ParamType.INTEGER: _integer,
    ParamType.NUMBER: _number,
    ParamType.BOOLEAN: _boolean,
    ParamType.DATE: _date,
    ParamType.DATETIME: _datetime,
}


def _misplaced(param: Param) -> list[Fault]:
    """Fields that mean nothing together, or with this type."""
    faults = []
    numeric = param.type in (ParamType.INTEGER, ParamType.NUMBER)
    for name, bound in (("minimum", param.minimum), ("maximum", param.maximum)):
        if bound is not None and not numeric:
            faults.append(Fault(field=name, value=bound, problem="is for types integer and number only"))
    if param.minimum is not None and param.maximum is not None and param.minimum > param.maximum:
        faults.append(Fault(field="minimum", value=param.minimum, problem="must not be above maximum"))
    if param.pattern is not None:
        faults += _pattern_faults(param)
    if param.required and param.default is not None:
        faults.append(Fault(field="default", value=param.default, problem="is never used: required is true"))
    return faults


def _pattern_faults(param: Param) -> list[Fault]:
    if param.type is not ParamType.STRING:
        return [Fault(field="pattern", value=param.pattern, problem="is for type string only")]
    problem = pattern_problem(param.pattern or "")
    return [Fault(field="pattern", value=param.pattern, problem=problem)] if problem else []


def _unfit_own_values(param: Param) -> list[Fault]:
    """The default and the allowed values must fit the type themselves."""
    faults = []
    for index, one in enumerate(param.allowed):
        try:
            _COERCIONS[param.type](one)
        except Unfit as unfit:
            faults.append(Fault(field=f"allowed.{index}", value=one, problem=unfit.problem))
    if param.relative_default is not None:
        faults += _relative_faults(param)
    elif param.default is not None and not faults and not _misplaced(param):
        try:
            param.coerce_declared(param.default)
        except Unfit as unfit:
            problem = unfit.problem + (f", or relative: {EXAMPLES}" if param.type in _TIMES else "")
            faults.append(Fault(field="default", value=param.default, problem=problem, allowed=unfit.allowed))
    return faults


def _relative_faults(param: Param) -> list[Fault]:
    """A relative default must mean a moment; which one, only a submission tells."""
    if param.allowed:
        return [
            Fault(field="default", value=param.default, problem="must be one of allowed, which never move")
        ]
    try:
        # Any schedule will do: whether the source has one is for the source to say.
        param.default_at(Moment(at=_SOME_DAY, schedule="@daily"))
    except Unfit as unfit:
        return [Fault(field="default", value=param.default, problem=unfit.problem)]
    return []
