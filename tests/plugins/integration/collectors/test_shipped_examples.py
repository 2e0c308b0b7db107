"""The example sources that are shipped, against the server they are written for."""

from __future__ import annotations

from typing import Any

import pytest

from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.http import HttpCollector
from collect_ops.collectors.page import Span
from collect_ops.kernel.paths import include_dir
from collect_ops.sources.load import load_source
from collect_ops.sources.request import render
from tests.servers.paged import PagedServer, basic

EXAMPLES = sorted((include_dir() / "sources").glob("example_*.yaml"))
SERVER_SAYS: dict[str, dict[str, Any]] = {
    "none": {},
    "basic": {"required_headers": basic("me", "key")},
    "bearer": {"required_headers": {"Authorization": "Bearer key"}},
    "header": {"required_headers": {"X-Api-Key": "key"}},
    "query": {"required_query": {"api_key": "key"}},
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
async def test_an_example_collects_every_row(path: Any) -> None:
    source = load_source(path)
    kind = source.auth.location if source.auth.type == "api_key" else source.auth.type.value
    with PagedServer(
        rows=250, cap=70, gzip=True, total_header="X-Total-Count", **SERVER_SAYS[kind]
    ) as server:
        endpoint = Endpoint(base_url=server.base_url, login="me", password="key", allow_private_networks=True)
        async with HttpCollector(source, render(source, {}), endpoint) as collector:
            total = await collector.total()
            ids = [record["id"] async for page in collector.pages(Span()) for record in page.records]
    assert total in (None, 250)
    assert ids == list(range(250))
