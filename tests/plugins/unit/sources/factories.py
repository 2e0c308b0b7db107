"""Sources for tests."""

from __future__ import annotations

from typing import Any

from collect_ops.sources.model import Source


def source_fields(**changes: Any) -> dict[str, Any]:
    """The fields of a small valid source, some changed."""
    return {"name": "things", "connection": "things_api", "target": {"table": "things"}, **changes}


def make_source(**changes: Any) -> Source:
    """A small valid source, some fields changed."""
    return Source.model_validate(source_fields(**changes))


def make_requesting(**request: Any) -> Source:
    """A source whose request is this."""
    return make_source(request=request)
