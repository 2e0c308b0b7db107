"""Files of rules (`include/rules/*.yaml`): read strictly, validated when loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.kernel.faults import capped, faults_from
from collect_ops.kernel.paths import include_dir
from collect_ops.kernel.yaml_text import read_yaml


class Rules(BaseModel):
    """Base of what such files hold: frozen, unknown fields are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of a file that holds this."""
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **cls.model_json_schema()}


RulesT = TypeVar("RulesT", bound=Rules)


def shipped(name: str) -> Path:
    """Where this installation's rules of a name lie."""
    return include_dir() / "rules" / f"{name}.yaml"


def load_rules(path: Path, model: type[RulesT]) -> RulesT:
    """Load and validate a file of rules; an empty one holds the defaults.

    Args:
        path: The file.
        model: What it holds.

    Raises:
        OSError: It cannot be read.
        ValidationFailed: With every fault of the file.
    """
    subject = f"rules {path.name}"
    value, faults = read_yaml(path.read_bytes())
    if faults:
        raise ValidationFailed(subject, capped(faults))
    try:
        return model.model_validate({} if value is None else value)
    except ValidationError as error:
        raise ValidationFailed(subject, capped(faults_from(error, model))) from error
