"""One shard group, no Airflow: what the engine makes of the demo's rows, in a process of its own.

The collect task is stored as a claim would leave it, planned as one shard group, and run. Prints
`{"rows": …, "seconds": …}`; rows are those of the table; seconds are the group's, as those of the bare script are: from
the first request to the last commit, its own start and the planning not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

from collect_ops.admission import store
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.execution.group import GroupResult, run_group
from collect_ops.execution.plan import GroupRef, TaskAttempt, plan
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import LaneRules, lane_rules
from collect_ops.sources.load import get_source, load_source
from collect_ops.sources.model import Source
from collect_ops.sources.stored import dump_definition
from collect_ops.storage import Connection, connect
from collect_ops.storage.migrate import migrate

RUN_ID: Final = "benchmark"
LANE: Final = "normal"
#: Means the same as `rows`, and is not a path whose rows are read straight from a page's bytes.
PARSED_RECORDS: Final = "@.rows"
ACTOR: Final = "benchmark"

STORE_SQL: Final = """
    insert into collect.task (source, source_version, dedup_key, priority, lane, status, moved_by, submitted_by,
                              submitted_via, attempt, max_retries, run_id, groups_reserved, claimed_at)
    values (%(source)s, %(version)s, %(version)s, 5, %(lane)s, 'CLAIMED', %(actor)s, %(actor)s, 'cli', 1, 0,
            %(run_id)s, 1, now())
    returning id
"""


def main() -> int:
    """Read the command line, run the group, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", required=True)
    parser.add_argument(
        "--dsn", required=True, help="a database of its own: its collected rows are removed first"
    )
    parser.add_argument("--redis", required=True)
    parser.add_argument("--amqp", required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--concurrency", type=int)
    parser.add_argument("--source", type=Path, help="the file of another source than the demo's")
    parser.add_argument("--page-rows", type=int, help="rows of a page")
    parser.add_argument("--parsed", action="store_true", help="have every page parsed into records")
    parser.add_argument("--equal-pages", choices=("refuse", "end", "allow"), help="as the field of `paging`")
    parser.add_argument("--profile", help="write cProfile's figures to this file")
    arguments = parser.parse_args()
    backends = Backends(postgres_dsn=arguments.dsn, redis_url=arguments.redis, amqp_url=arguments.amqp)
    cpu = time.process_time()
    source = _source(arguments)
    result, seconds = run(backends, arguments.base_url, source, arguments.profile)
    cpu_seconds = time.process_time() - cpu
    rows = _landed(arguments.dsn, source)
    figures = {"rows": rows, "seconds": seconds, "cpu_seconds": cpu_seconds}
    print(json.dumps({**figures, "shards": result.done, "failed": result.failed}))
    return 0 if rows == result.rows == arguments.rows else 1


def run(backends: Backends, base_url: str, source: Source, profile: str | None) -> tuple[GroupResult, float]:
    """Store, plan and run the task; returns what the group did and how long it took, in seconds."""
    rules = _one_group_a_task(lane_rules())
    endpoint = Endpoint(base_url=base_url, allow_private_networks=True)
    with connect(backends.postgres_dsn) as connection:
        migrate(connection)
        task_id = _store(connection, source)
    planned = plan(
        [TaskAttempt(task_id=task_id, attempt=1)], RUN_ID, backends, rules, lambda _: endpoint, actor=ACTOR
    )
    (group,) = planned.groups
    if profile:
        return _profiled(group, backends, rules, endpoint, profile)
    return _timed(group, backends, rules, endpoint)


def _timed(
    group: GroupRef, backends: Backends, rules: LaneRules, endpoint: Endpoint
) -> tuple[GroupResult, float]:
    began = time.perf_counter()
    result = asyncio.run(
        run_group(
            group.run_id, group.group_no, backends, rules, lambda _: endpoint, node="bench", actor=ACTOR
        )
    )
    return result, time.perf_counter() - began


def _profiled(
    group: GroupRef, backends: Backends, rules: LaneRules, endpoint: Endpoint, path: str
) -> tuple[GroupResult, float]:
    profiler = cProfile.Profile()
    with profiler:
        outcome = _timed(group, backends, rules, endpoint)
    profiler.dump_stats(path)
    return outcome


def _source(arguments: argparse.Namespace) -> Source:
    """The source with what the command line changes of it."""
    source = load_source(arguments.source) if arguments.source else get_source("flights")
    changes: dict[str, Any] = {}
    if arguments.concurrency is not None:
        changes["limits"] = source.limits.model_copy(update={"concurrency": arguments.concurrency})
    if arguments.page_rows is not None:
        changes["page_size"] = arguments.page_rows
    if arguments.parsed:
        changes["records"] = PARSED_RECORDS
    if arguments.equal_pages is not None:
        changes["paging"] = source.paging.model_copy(update={"equal_pages": arguments.equal_pages})
    return source.model_copy(update=changes)


def _landed(dsn: str, source: Source) -> int:
    with connect(dsn) as connection:
        row = connection.execute(f"select count(*) as rows from landing.{source.target.table}").fetchone()
    return int(row["rows"]) if row else 0


def _one_group_a_task(rules: LaneRules) -> LaneRules:
    lanes = {name: lane.model_copy(update={"groups_per_task": 1}) for name, lane in rules.lanes.items()}
    return rules.model_copy(update={"lanes": lanes})


def _store(connection: Connection, source: Source) -> int:
    """Remove what an earlier run left, and store the task as a claim would leave it."""
    connection.execute(f"drop table if exists landing.{source.target.table}")
    connection.execute("delete from collect.shard_group where run_id = %s", (RUN_ID,))
    connection.execute("delete from collect.task where moved_by is not null")
    stored = dump_definition(source)
    store.insert_definition(connection, stored)
    values = {
        "source": source.name,
        "version": stored.version,
        "lane": LANE,
        "actor": ACTOR,
        "run_id": RUN_ID,
    }
    row = connection.execute(STORE_SQL, values).fetchone()
    if row is None:
        raise LookupError("storing the task returned no id")
    return int(row["id"])


if __name__ == "__main__":
    sys.exit(main())
