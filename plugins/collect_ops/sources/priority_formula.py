"""What a source may set otherwise in the formula of its tasks' priorities."""

from __future__ import annotations

from pydantic import Field

from collect_ops.sources.declaration import Declaration


class RetryBoost(Declaration):
    """What retries add."""

    boost: int = Field(default=1, ge=0, le=10)
    """Added for each retry."""
    most: int = Field(default=2, ge=0, le=10)
    """Added for all retries together at most."""


class Ageing(Declaration):
    """What waiting adds."""

    first_after_s: float = Field(default=3600.0, gt=0)
    """Seconds of waiting after which it begins."""
    every_s: float = Field(default=3600.0, gt=0)
    """Seconds between two steps after that."""
    boost: int = Field(default=1, ge=0, le=10)
    """Added at each step; 0: a task may starve behind more urgent ones."""


class PriorityFormula(Declaration):
    """Parts of the installation's formula (`include/rules/priority.yaml`); what is not given stays as it is there."""

    emergency: int | None = Field(default=None, ge=0, le=10)
    """Added while a task is an emergency."""
    retry: RetryBoost | None = None
    """What retries add."""
    ageing: Ageing | None = None
    """What waiting adds."""
