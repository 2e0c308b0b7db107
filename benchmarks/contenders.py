"""The contenders: each does the whole job once, on empty tables, and says how long that took."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.errors import PeerFailed
from benchmarks.measure import Contender, Sample, Stopwatch
from benchmarks.own_services import own_redis
from benchmarks.peers import bare
from benchmarks.report import CHECKOUT
from benchmarks.settings import BenchSettings
from benchmarks.stock_airflow import shipped_airflow
from demo.airflow_api import AirflowApi
from demo.progress import wait_until_settled
from demo.run import prepare_connection, submit, unpause_needed
from demo.server import ensure_running

SCRIPT_TIMEOUT_S: Final = 600
SERVER_CONNECTION: Final = "bench_flights"
STOCK_DAG: Final = "bench_stock_flights"
DAG_PARSE_TIMEOUT_S: Final = 180


class FlightServer(Protocol):
    """Whatever serves the flights."""

    @property
    def base_url(self) -> str:
        """Scheme, host and port, no slash at the end."""

    @property
    def rows(self) -> int:
        """How many rows it serves."""


def bare_script(settings: BenchSettings, server: FlightServer, *, page: int = 5_000) -> Contender:
    """The bare asyncio + COPY script."""
    return _script("bare script", settings, server, "bare.py", "--page", str(page))


def bare_script_typed(settings: BenchSettings, server: FlightServer) -> Contender:
    """The bare script with what makes the engine fast."""
    return _script("bare script, typed", settings, server, "bare.py", "--typed")


def engine(
    settings: BenchSettings,
    server: FlightServer,
    dsn: str,
    *options: str,
    name: str = "engine",
    checkout: Path = CHECKOUT,
) -> Contender:
    """The engine alone, in a process of its own.

    Args:
        settings: the running stack.
        server: where the rows come from.
        dsn: a database of its own.
        options: of `engine_process`.
        name: what tables call it.
        checkout: whose engine.
    """

    def once() -> Sample:
        command = [
            *(sys.executable, "-m", "benchmarks.engine_process"),
            *("--base-url", server.base_url, "--dsn", dsn, "--rows", str(server.rows)),
            *("--redis", own_redis(settings), "--amqp", settings.stack.amqp_url),
            *options,
        ]
        # Another checkout's code has its own statements and rules.
        paths = os.pathsep.join([str(CHECKOUT), str(checkout / "plugins")])
        environment = {
            **os.environ,
            "PYTHONPATH": paths,
            "COLLECT_OPS_INCLUDE": str(checkout / "include"),
        }
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SCRIPT_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise PeerFailed(peer=name, reason=(done.stdout + done.stderr)[-2000:])
        sample: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return sample

    return Contender(name=name, run=once)


def dlt_append(settings: BenchSettings, server: FlightServer) -> Contender:
    """dlt, rows appended, as its documentation says it is fast."""
    return _script("dlt append, tuned", settings, server, "dlt_pipeline.py", "--disposition", "append")


def dlt_merge(settings: BenchSettings, server: FlightServer) -> Contender:
    """dlt, rows merged by key, as its documentation says it is fast."""
    return _script("dlt merge, tuned", settings, server, "dlt_pipeline.py", "--disposition", "merge")


def dlt_arrow(settings: BenchSettings, server: FlightServer) -> Contender:
    """dlt, given Arrow tables, which its user has to make: the fastest way through it."""
    return _script(
        "dlt append, Arrow tables", settings, server, "dlt_pipeline.py", "--arrow", "--file-format", "parquet"
    )


def dlt_as_installed(settings: BenchSettings, server: FlightServer) -> Contender:
    """The REST source of dlt with nothing set."""
    return _script("dlt append, as installed", settings, server, "dlt_pipeline.py", "--as-installed")


def _script(
    name: str, settings: BenchSettings, server: FlightServer, script: str, *options: str
) -> Contender:
    def run() -> Sample:
        command = [
            str(settings.python),
            str(CHECKOUT / "benchmarks" / "peers" / script),
            *("--base-url", server.base_url, "--dsn", settings.dsn, "--rows", str(server.rows)),
            *options,
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=SCRIPT_TIMEOUT_S,
            check=False,
            cwd=settings.stack.home,
        )
        if done.returncode != 0:
            raise PeerFailed(peer=name, reason=done.stderr[-2000:])
        sample: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return _complete(name, sample, server)

    return Contender(name=name, run=run)


@contextmanager
def stock_dag(settings: BenchSettings, server: FlightServer) -> Iterator[Contender]:
    """The stock DAG in this project's Airflow; its file is in the DAG folder for the length of the block."""
    airflow, name = settings.airflow, "stock DAG in our Airflow"
    target = CHECKOUT / "dags" / "_bench" / f"{STOCK_DAG}.py"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).parent / "dags" / f"{STOCK_DAG}.py", target)
    try:
        airflow.put_connection(SERVER_CONNECTION, {"conn_type": "http", "host": server.base_url})
        airflow.wait_for_dag(STOCK_DAG, DAG_PARSE_TIMEOUT_S)
        airflow.unpause(STOCK_DAG)
        run = partial(_run_stock, name, settings, airflow, server)
        yield Contender(name=name, run=run, trees=settings.worker_pids)
    finally:
        shutil.rmtree(target.parent)
        airflow.delete_dag(STOCK_DAG)
        airflow.delete_connection(SERVER_CONNECTION)


@contextmanager
def stock_airflow(settings: BenchSettings, server: FlightServer) -> Iterator[Contender]:
    """The stock DAG in an Airflow as it is shipped, beside ours."""
    name = "stock Airflow"
    postgres = settings.dsn.replace("postgresql://", "postgres://", 1)
    connections = {
        "collect_postgres": postgres,
        SERVER_CONNECTION: json.dumps({"conn_type": "http", "host": server.base_url}),
    }
    with shipped_airflow(settings, connections) as shipped:
        shipped.api.wait_for_dag(STOCK_DAG, DAG_PARSE_TIMEOUT_S)
        shipped.api.unpause(STOCK_DAG)

        def run() -> Sample:
            with shipped.awake():
                return _run_stock(name, settings, shipped.api, server)

        yield Contender(name=name, run=run, trees=lambda: shipped.scheduler_pids)


def _run_stock(name: str, settings: BenchSettings, airflow: AirflowApi, server: FlightServer) -> Sample:
    columns = {name: kind for name, kind in bare.COLUMNS.items() if name != "content_hash"}
    definitions = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    settings.execute(
        "drop table if exists bench_stock",
        f"create table bench_stock ({definitions}, primary key ({', '.join(bare.KEY)}))",
    )
    with Stopwatch() as watch:
        run_id = airflow.trigger(STOCK_DAG, {})
        run = airflow.wait_for_run(STOCK_DAG, run_id, SCRIPT_TIMEOUT_S)
    if run["state"] != "success":
        raise PeerFailed(peer=name, reason=f"run {run_id} ended as {run['state']}")
    return _complete(name, {"rows": settings.count("bench_stock"), "seconds": watch.seconds}, server)


def remove_tables(settings: BenchSettings) -> None:
    """Remove what the peers have landed."""
    settings.execute(
        "drop table if exists bench_bare",
        "drop table if exists bench_stock",
        "drop schema if exists bench_dlt_append cascade",
        "drop schema if exists bench_dlt_merge cascade",
        "drop schema if exists bench_dlt_merge_staging cascade",
    )


@contextmanager
def collect_ops(settings: BenchSettings, server: FlightServer) -> Iterator[Contender]:
    """Ours: submit by REST, through RabbitMQ and Airflow, until the task is COMPLETED."""
    unpause_needed(settings.airflow)
    prepare_connection(settings.airflow, server.base_url)
    try:
        yield Contender(
            name="collect-ops", run=lambda: _run_ours(settings, server), trees=settings.worker_pids
        )
    finally:
        # The server of this run ends; the stack's own takes its place, so that the source can be collected.
        prepare_connection(settings.airflow, ensure_running(settings.stack.home).base_url)


def _run_ours(settings: BenchSettings, server: FlightServer) -> Sample:
    settings.execute("drop table if exists landing.flights")
    with Stopwatch() as watch:
        submission = submit(settings.airflow, force=True)
        task = wait_until_settled(settings.dsn, submission.task_id, SCRIPT_TIMEOUT_S)
    if task.status != "COMPLETED":
        raise PeerFailed(peer="collect-ops", reason=f"task {submission.task_id} ended as {task.status}")
    sample = {
        "rows": settings.count("landing.flights"),
        "seconds": watch.seconds,
        "first_shard_s": task.first_shard_s,
        "admitted_to_end_s": task.total_s,
    }
    return _complete("collect-ops", sample, server)


def _complete(name: str, sample: dict[str, Any], server: FlightServer) -> Sample:
    """The sample, if the contender really landed everything."""
    if sample["rows"] != server.rows:
        raise PeerFailed(peer=name, reason=f"landed {sample['rows']} of {server.rows} rows")
    return sample
