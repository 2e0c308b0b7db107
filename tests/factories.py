"""Values that tests need many of: declared sources and submissions."""

from __future__ import annotations

import uuid
from typing import Any

from collect_ops.admission.model import Submission
from collect_ops.sources.model import Source


def source(name: str = "things", **fields: Any) -> Source:
    """A source over `/offset` of a PagedServer, shards of 100 rows in pages of 50, merged by id."""
    declared: dict[str, Any] = {
        "name": name,
        "connection": "things_api",
        "request": {"path": "/offset", "params": {"day": {"type": "string"}}, "query": {"day": "{day}"}},
        "records": "rows",
        "paging": {"type": "offset"},
        "total": {"type": "body", "path": "total"},
        "batch_size": 100,
        "page_size": 50,
        "retries": {"http_attempts": 1, "http_backoff_s": 0.01, "max_retries": 3, "base_s": 0.2},
        "target": {
            "table": name,
            "disposition": "merge",
            "key": ["id"],
            "columns": {"id": {"type": "bigint"}, "name": {"type": "text"}},
        },
    }
    declared.update(fields)
    return Source.model_validate(declared)


def list_source(name: str = "things", *, max_values: int = 100, **fields: Any) -> Source:
    """A source over `/select` of a PagedServer whose tasks merge by their lists of ids."""
    params = {"ids": {"type": "string"}, "region": {"type": "string"}}
    return source(
        name,
        request={"path": "/select", "params": params, "query": {"ids": "{ids}", "region": "{region}"}},
        paging={"type": "none"},
        page_size=None,
        total={"type": "body", "path": "matching"},
        merge={"type": "list", "param": "ids", "column": "id", "max_values": max_values},
        **fields,
    )


def range_source(kind: str = "integer", *, name: str = "things", **merge: Any) -> Source:
    """A source over `/select` of a PagedServer whose tasks merge by ranges of ids (or of dates, for pure tests)."""
    column = {"date": "date", "datetime": "timestamptz"}.get(kind, "bigint")
    return source(
        name,
        request={
            "path": "/select",
            "params": {"first": {"type": kind}, "last": {"type": kind}},
            "query": {"first": "{first}", "last": "{last}"},
        },
        paging={"type": "none"},
        page_size=None,
        total={"type": "body", "path": "matching"},
        target={
            "table": name,
            "disposition": "merge",
            "key": ["id"],
            "columns": {"id": {"type": column}, "name": {"type": "text"}},
        },
        merge={"type": "range", "start": "first", "end": "last", "column": "id", **merge},
    )


def submission(name: str = "things", **fields: Any) -> Submission:
    """A submission with a request id of its own."""
    filled: dict[str, Any] = {
        "source": name,
        "request_id": f"test:{uuid.uuid4()}",
        "submitted_by": "test",
        "submitted_via": "test",
    }
    return Submission(**{**filled, **fields})
