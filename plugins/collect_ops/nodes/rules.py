"""`include/rules/placement.yaml`, validated when loaded."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Annotated, Self

from pydantic import Field, model_validator

from collect_ops.kernel.rules_file import Rules, load_rules, shipped

#: A time that is waited, by PostgreSQL's clock or Redis's: a millisecond to 30 days.
Seconds = Annotated[float, Field(ge=0.001, le=2_592_000)]
Points = Annotated[float, Field(ge=0, le=1_000_000)]
Percent = Annotated[float, Field(gt=0, le=100)]


class HeartbeatRule(Rules):
    """How often agents say that they live, and until when they count as alive."""

    every_s: Seconds = 30.0
    alive_s: Seconds = 60.0
    suspect_s: Seconds = 45.0

    @model_validator(mode="after")
    def _one_may_be_missed(self) -> Self:
        if not self.every_s < self.suspect_s < self.alive_s:
            raise ValueError("every_s must be less than suspect_s, and that less than alive_s")
        return self


class AvailableRule(Rules):
    """Below these a node that is alive takes work at all."""

    cpu_percent: Percent = 90.0
    memory_percent: Percent = 90.0


class PlaceableRule(Rules):
    """Below these an available node gets new work."""

    cpu_percent: Percent = 80.0
    memory_percent: Percent = 80.0
    disk_percent: Percent = 95.0


class FlappingRule(Rules):
    """A node that was lost and came back `changes` times within `window_s` must stay alive for `damped_s`."""

    changes: Annotated[int, Field(ge=1, le=10_000)] = 3
    window_s: Seconds = 600.0
    damped_s: Seconds = 300.0


class FailureRule(Rules):
    """After so many failed dispatches in a row a node is held back for `hold_s * factor^n`, at most `max_hold_s`."""

    failures: Annotated[int, Field(ge=1, le=10_000)] = 3
    hold_s: Seconds = 30.0
    factor: Annotated[float, Field(ge=1, le=100)] = 2.0
    max_hold_s: Seconds = 1800.0


class PolicyName(StrEnum):
    """How nodes are scored."""

    LEAST_LOADED = "least_loaded"
    FEWEST_GROUPS = "fewest_groups"


class PlacementRule(Rules):
    """Which of the nodes that can take a shard group gets it: the one with the lowest score."""

    policy: PolicyName = PolicyName.LEAST_LOADED
    per_group: Points = 10.0
    spread: Points = 15.0
    affinity: Points = 25.0
    press_from: Annotated[int, Field(ge=0, le=11)] = 8
    press_after_s: Annotated[float, Field(ge=0, le=2_592_000)] = 60.0


class DispatchRule(Rules):
    """When a shard group that a node was given is taken back, and when one that runs counts as lost."""

    start_within_s: Seconds = 30.0
    lost_after_s: Seconds = 30.0
    hung_after_s: Seconds = 900.0
    retry_s: Seconds = 30.0
    max_retry_s: Seconds = 1800.0
    drain_within_s: Seconds = 60.0


class PlacementRules(Rules):
    """Everything that says what a node is fit for."""

    heartbeat: HeartbeatRule = HeartbeatRule()
    available: AvailableRule = AvailableRule()
    placeable: PlaceableRule = PlaceableRule()
    flapping: FlappingRule = FlappingRule()
    failures: FailureRule = FailureRule()
    placement: PlacementRule = PlacementRule()
    dispatch: DispatchRule = DispatchRule()
    keep_samples_days: Annotated[float, Field(gt=0, le=3660)] = 7.0

    @model_validator(mode="after")
    def _placing_is_stricter(self) -> Self:
        for name in ("cpu_percent", "memory_percent"):
            if getattr(self.placeable, name) > getattr(self.available, name):
                raise ValueError(f"placeable.{name} must not be above available.{name}")
        return self


@cache
def placement_rules() -> PlacementRules:
    """The rules of this installation: `include/rules/placement.yaml`."""
    return load_rules(shipped("placement"), PlacementRules)
