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


def submission(name: str = "things", **fields: Any) -> Submission:
    """A submission with a request id of its own."""
    filled: dict[str, Any] = {
        "source": name,
        "request_id": f"test:{uuid.uuid4()}",
        "submitted_by": "test",
        "submitted_via": "test",
    }
    return Submission(**{**filled, **fields})
