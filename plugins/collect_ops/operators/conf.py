"""A run's conf: keys that nobody reads are refused, since Airflow would leave a misspelt one unread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from collect_ops.kernel.errors import Fault, ValidationFailed, did_you_mean


def refuse_unknown(conf: Mapping[str, Any] | None, known: Sequence[str], subject: str) -> None:
    """Look at a run's conf before its values are used.

    Args:
        conf: The run's.
        known: The keys that it may have.
        subject: What the conf is for.

    Raises:
        ValidationFailed: With every key that is not known.
    """
    faults = []
    for name in sorted(set(conf or {}) - set(known)):
        close = did_you_mean(name, known)
        hint = f"; did you mean {close!r}?" if close else ""
        problem = f"is not a parameter of this DAG: it has {', '.join(known)}{hint}"
        faults.append(Fault(field=f"conf.{name}", value=(conf or {})[name], problem=problem))
    if faults:
        raise ValidationFailed(subject, faults)
