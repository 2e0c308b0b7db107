"""Parameters from the command line."""

from __future__ import annotations

from collections.abc import Sequence

from collect_ops.kernel.errors import Fault, ValidationFailed


def parse_params(pairs: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` pairs as a mapping.

    Raises:
        ValidationFailed: Some are not of that form.
    """
    faults = [
        Fault(field="--param", value=pair, problem="must be NAME=VALUE") for pair in pairs if "=" not in pair
    ]
    if faults:
        raise ValidationFailed("command line", faults)
    return dict(pair.split("=", 1) for pair in pairs)
