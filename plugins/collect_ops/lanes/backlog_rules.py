"""`include/rules/backlog.yaml`, validated when loaded: which backlog makes what happen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from collect_ops.kernel.errors import Fault, ValidationFailed, did_you_mean
from collect_ops.kernel.faults import capped
from collect_ops.kernel.rules_file import Rules, load_rules, shipped
from collect_ops.lanes.backlog import Load
from collect_ops.lanes.policy import PACK
from collect_ops.lanes.rules import LaneRules, Positive, lane_rules

Kind = Literal["lane", "source"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
#: Tasks or seconds; a double counts whole numbers up to here one by one.
Above = Annotated[float, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]

#: A lane's collect DAG runs at most four runs a slot of lanes.yaml.
MAX_WIDENING = 4
_QUANTITIES = ("depth", "oldest", "drain")
_FOR_LANES = ("scale_groups", "widen_pool")
_FOR_SOURCES = ("slow_admission", "shed")


class Scope(Rules):
    """Whom a rule is about: a lane or a source, by name or `any` (each by itself)."""

    lane: str | None = None
    source: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.lane is None) == (self.source is None):
            raise ValueError("scope must name either lane or source")
        return self

    @property
    def kind(self) -> Kind:
        """Whether it is about lanes or about sources."""
        return "source" if self.lane is None else "lane"

    @property
    def name(self) -> str | None:
        """Whom it names; None for any."""
        named = self.lane if self.source is None else self.source
        return None if named == "any" else named


class When(Rules):
    """The backlog that a rule acts on. A backlog that does not shrink drains never: later than any `drain_above_s`."""

    match: Literal["all", "any"] = "all"
    depth_above: Above | None = None
    oldest_above_s: Above | None = None
    drain_above_s: Above | None = None

    @property
    def thresholds(self) -> dict[str, float]:
        """By quantity: depth, oldest, drain."""
        return _given(self.depth_above, self.oldest_above_s, self.drain_above_s)

    def holds(self, load: Load) -> bool:
        """Whether a load is such a backlog."""
        return _matches(self.match, (_quantity(load, q) > limit for q, limit in self.thresholds.items()))

    def describe(self, load: Load) -> str:
        """Why a load is such a backlog, for people."""
        return ", ".join(
            f"{name} {_number(_quantity(load, name))} above {_number(limit)}"
            for name, limit in self.thresholds.items()
            if _quantity(load, name) > limit
        )


class Clear(Rules):
    """The backlog at which a rule lets go: below `when`, so that between the two nothing changes."""

    match: Literal["all", "any"] = "all"
    depth_below: Above | None = None
    oldest_below_s: Above | None = None
    drain_below_s: Above | None = None

    @property
    def thresholds(self) -> dict[str, float]:
        """By quantity: depth, oldest, drain."""
        return _given(self.depth_below, self.oldest_below_s, self.drain_below_s)

    def holds(self, load: Load) -> bool:
        """Whether a load is low enough."""
        return _matches(self.match, (_quantity(load, q) < limit for q, limit in self.thresholds.items()))


class ScaleGroups(Rules):
    """One task spreads over fewer shard groups, and a shared run carries more small tasks.

    Args:
        factor: Groups a task are divided by it, tasks a shared run multiplied.
        max: Small tasks of a shared run at most.
    """

    factor: Annotated[float, Field(gt=1, le=100)]
    max: Annotated[int, Field(ge=PACK, le=1000)]


class WidenPool(Rules):
    """The lane gets more slots, in Airflow's pool and for claims.

    Args:
        slots_step: Slots more than lanes.yaml says.
        max_slots: Slots at most.
    """

    slots_step: Positive
    max_slots: Positive


class SlowAdmission(Rules):
    """Submissions of the source are refused with a time to try again; urgent ones (priority 8 and up) pass.

    Args:
        retry_after_s: Seconds after which a caller may try again.
        per_s: Submissions a second that are admitted all the same; none when not given.
    """

    retry_after_s: Seconds = 60.0
    per_s: Annotated[float, Field(ge=1e-5, le=1_000_000)] | None = None


class Shed(Rules):
    """Waiting tasks of a source that declares `sheddable: true` are cancelled, lowest priority and oldest first.

    Args:
        below_priority: Only tasks of a lower priority.
        keep: Such tasks that stay.
    """

    below_priority: Annotated[int, Field(ge=1, le=10)]
    keep: Annotated[int, Field(ge=0, le=1_000_000_000)]


class Actions(Rules):
    """What a rule does while the backlog is there."""

    scale_groups: ScaleGroups | None = None
    widen_pool: WidenPool | None = None
    slow_admission: SlowAdmission | None = None
    shed: Shed | None = None

    @property
    def named(self) -> dict[str, Rules]:
        """The actions that are given, by name."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


class BacklogRule(Rules):
    """One rule: acts once `when` has held for `for_s`, lets go once `clear` has held for `clear_for_s`."""

    name: Name
    scope: Scope
    when: When
    for_s: Annotated[float, Field(ge=0, le=2_592_000)] = 0.0
    clear: Clear
    clear_for_s: Annotated[float, Field(ge=0, le=2_592_000)] = 0.0
    actions: Actions

    @model_validator(mode="after")
    def _is_of_one_piece(self) -> Self:
        if problems := [*self._band_problems(), *self._action_problems()]:
            raise ValueError("; ".join(problems))
        return self

    def _band_problems(self) -> Iterator[str]:
        """Whatever would let `when` and `clear` hold at once."""
        above, below = self.when.thresholds, self.clear.thresholds
        if not above:
            yield "when must have depth_above, oldest_above_s or drain_above_s"
        if not below:
            yield "clear must have depth_below, oldest_below_s or drain_below_s"
        for name, limit in below.items():
            if name not in above:
                yield f"clear has {name}, which when has not"
            elif limit > above[name]:
                yield f"clear's {name} ({limit:g}) must not be above when's ({above[name]:g})"
        covered = self.clear.match == "all" and set(below) == set(above)
        if self.when.match == "any" and len(above) > 1 and not covered:
            yield f"when matches any, so clear must match all of {', '.join(above)}"

    def _action_problems(self) -> Iterator[str]:
        named = self.actions.named
        if not named:
            yield f"actions must have one of {', '.join(Actions.model_fields)}"
        misplaced = _FOR_SOURCES if self.scope.kind == "lane" else _FOR_LANES
        for name in named:
            if name in misplaced:
                other = "sources" if self.scope.kind == "lane" else "lanes"
                yield f"{name} acts on {other}, the scope names a {self.scope.kind}"


def _empty_list(value: object) -> object:
    return () if value is None else value


class BacklogRules(Rules):
    """All rules, and how long samples are kept."""

    keep_samples_h: Annotated[float, Field(gt=0, le=24 * 366)] = 48.0
    rules: Annotated[tuple[BacklogRule, ...], BeforeValidator(_empty_list), Field(max_length=1000)] = ()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = Counter(rule.name for rule in self.rules)
        if twice := sorted(name for name, times in names.items() if times > 1):
            raise ValueError(f"names must be unique, given twice: {', '.join(twice)}")
        return self

    def find(self, name: str) -> BacklogRule | None:
        """The rule of a name."""
        return next((rule for rule in self.rules if rule.name == name), None)


def load_backlog_rules(path: Path, lanes: LaneRules) -> BacklogRules:
    """Load and validate a backlog file.

    Args:
        path: The file.
        lanes: Lane rules, which lanes and slots are checked against.

    Raises:
        ValidationFailed: With every fault of the file.
    """
    rules = load_rules(path, BacklogRules)
    if found := tuple(lane_faults(rules, lanes)):
        raise ValidationFailed(f"rules {path.name}", capped(found))
    return rules


def lane_faults(rules: BacklogRules, lanes: LaneRules) -> Iterator[Fault]:
    """What does not fit the lanes: a lane that is not there, a pool that would not be wider, or too wide."""
    for index, rule in enumerate(rules.rules):
        if rule.scope.kind == "source":
            continue
        named = rule.scope.name
        if named is not None and named not in lanes.lanes:
            close = did_you_mean(named, lanes.lanes)
            problem = "is no lane" + (f", did you mean {close!r}?" if close else "")
            yield Fault(
                field=f"rules.{index}.scope.lane",
                value=named,
                problem=problem,
                allowed=tuple(sorted((*lanes.lanes, "any"))),
            )
            continue
        widen = rule.actions.widen_pool
        for name in lanes.lanes if named is None else [named]:
            slots = lanes.lanes[name].slots
            if widen is not None and not slots < widen.max_slots <= MAX_WIDENING * slots:
                problem = f"must be above lane {name}'s {slots} slots, and at most {MAX_WIDENING * slots}"
                yield Fault(
                    field=f"rules.{index}.actions.widen_pool.max_slots",
                    value=widen.max_slots,
                    problem=problem,
                )


@cache
def backlog_rules() -> BacklogRules:
    """The rules of this installation: `include/rules/backlog.yaml`."""
    return load_backlog_rules(shipped("backlog"), lane_rules())


def _given(*limits: float | None) -> dict[str, float]:
    return {name: limit for name, limit in zip(_QUANTITIES, limits, strict=True) if limit is not None}


def _quantity(load: Load, name: str) -> float:
    if name == "depth":
        return load.depth
    if name == "oldest":
        return load.oldest_s
    return float("inf") if load.drain_s is None else load.drain_s


def _matches(match: str, found: Iterator[bool]) -> bool:
    values = list(found)
    return bool(values) and (all(values) if match == "all" else any(values))


def _number(value: float) -> str:
    return "never" if value == float("inf") else f"{value:,.0f}"
