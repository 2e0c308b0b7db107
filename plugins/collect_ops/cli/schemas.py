"""`collect-ops schemas`: the JSON Schemas beside what they describe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

# Below include/: which function gives the schema. A new kind of file is a line here.
SCHEMAS: dict[str, str] = {
    "rules/lanes.schema.json": "collect_ops.lanes.rules:LaneRules.json_schema",
    "messages/heartbeat.schema.json": "collect_ops.nodes.heartbeat:json_schema",
    "messages/inbox.schema.json": "collect_ops.admission.inbox_message:json_schema",
    "messages/inbox_reply.schema.json": "collect_ops.admission.inbox_message:reply_json_schema",
    "rules/backlog.schema.json": "collect_ops.lanes.backlog_rules:BacklogRules.json_schema",
    "rules/placement.schema.json": "collect_ops.nodes.rules:PlacementRules.json_schema",
    "rules/priority.schema.json": "collect_ops.lanes.priority:PriorityRules.json_schema",
    "rules/retention.schema.json": "collect_ops.maintenance.retention_rules:RetentionRules.json_schema",
    "rules/sharding.schema.json": "collect_ops.execution.rules:ShardingRules.json_schema",
    "sources/source.schema.json": "collect_ops.sources.schema:json_schema",
}


def schemas(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 when a file is out of date.")
    ] = False,
) -> None:
    """Write the JSON Schemas that editors use (include/**/*.schema.json)."""
    from collect_ops.cli.output import FAILED, print_error

    stale = [path for path, text in schema_texts().items() if not _holds(path, text)]
    for path in stale:
        if check:
            print_error(f"{path}: out of date; run `collect-ops schemas`")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(schema_texts()[path], encoding="utf-8")
            typer.echo(f"wrote {path}")
    if check and stale:
        raise typer.Exit(FAILED)


def schema_texts() -> dict[Path, str]:
    """What each schema file must hold."""
    import json

    from collect_ops.kernel.paths import include_dir

    return {
        include_dir() / name: json.dumps(_schema(reference), indent=2, ensure_ascii=False) + "\n"
        for name, reference in SCHEMAS.items()
    }


def _schema(reference: str) -> dict[str, Any]:
    from pkgutil import resolve_name

    schema: dict[str, Any] = resolve_name(reference)()
    return schema


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text
