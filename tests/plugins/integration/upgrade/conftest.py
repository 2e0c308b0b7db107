"""Databases that release 0.1.0 has written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from psycopg.conninfo import make_conninfo

from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import LaneRules
from tests.plugins.integration.databases import new_database
from tests.plugins.integration.upgrade.release import ROWS, Upgraded, restore, upgrade
from tests.servers.paged import PagedServer


@pytest.fixture(scope="session")
def release_database() -> Iterator[str]:
    """The name of a database as the release has left it, not migrated; nobody is connected to it."""
    with new_database("release") as (name, dsn):
        restore(dsn, make_conninfo(os.environ["COLLECT_POSTGRES_ADMIN_DSN"], dbname=name))
        yield name


@pytest.fixture
def release_dsn(release_database: str) -> Iterator[str]:
    """A copy of it."""
    with new_database("upgraded", release_database) as (_, dsn):
        yield dsn


@pytest.fixture
def roomy(rules: LaneRules) -> LaneRules:
    """With slots for all that the release has left under way."""
    lanes = {**rules.lanes, "normal": rules.lanes["normal"].model_copy(update={"slots": 60})}
    return rules.model_copy(update={"lanes": lanes})


@pytest.fixture
def upgraded(
    release_dsn: str, backends: Backends, roomy: LaneRules, serve: Callable[..., PagedServer]
) -> Upgraded:
    """The release's tasks after today's migrations; the server answers as it did."""
    upgrade(release_dsn)
    world = Upgraded(replace(backends, postgres_dsn=release_dsn), roomy)
    world.serve_from(serve(rows=ROWS).base_url)
    return world
