"""`include/rules/sharding.yaml`, validated when loaded."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.kernel.paths import include_dir
from collect_ops.lanes.rules import Rules


class ShardingRules(Rules):
    """The installation's defaults of sharding.

    Args:
        target_s: Seconds that a shard shall take.
        history: Finished shards of a source whose pace counts.
        steal: Whether a shard group that has finished takes unstarted shards of others of its run.
    """

    target_s: Annotated[float, Field(gt=0)] = 20
    history: Annotated[int, Field(ge=3, le=1000)] = 20
    steal: bool = True


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a sharding file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ShardingRules.model_json_schema()}


def load_sharding_rules(path: Path) -> ShardingRules:
    """Load and validate a sharding file.

    Raises:
        ValidationFailed: With every fault of the file.
    """
    try:
        return ShardingRules.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        faults = (
            Fault(field=".".join(map(str, e["loc"])) or path.name, value=e["input"], problem=e["msg"])
            for e in error.errors()
        )
        raise ValidationFailed(f"rules {path.name}", faults) from error


@cache
def sharding_rules() -> ShardingRules:
    """The rules of this installation: `include/rules/sharding.yaml`."""
    return load_sharding_rules(include_dir() / "rules" / "sharding.yaml")
