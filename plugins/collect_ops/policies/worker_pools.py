"""A Celery worker of several pools: `python -m collect_ops.policies.worker_pools celery POOL …`.

Airflow and all that tasks need is imported once and shared by fork: two workers side by side import it twice, and take
twice the memory. Each pool is a Celery worker of its own, so that what freezes or fills one leaves the other alone.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import sys
from pathlib import Path

from collect_ops.nodes.forked_pools import ForkedPools, Pool

#: What Airflow's command imports before it forks; DAGs' own imports are in config/airflow_local_settings.py.
PRELOAD = (
    "airflow.executors.base_executor",
    "airflow.executors.workloads",
    "airflow.providers.celery.cli.celery_command",
    "airflow.providers.celery.executors.celery_executor_utils",
    "airflow.utils.serve_logs",
    "celery.apps.multi",
    "celery.apps.worker",
    "celery.backends.database",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "celery.worker.autoscale",
    "celery.worker.consumer",
    "kombu.transport.pyamqp",
    "psycopg2",
)
FLAGS = ("--skip-serve-logs", "--without-mingle", "--without-gossip")


def command_line(pool: Pool, folder: Path) -> list[str]:
    """The arguments of `airflow` for a pool.

    Args:
        pool: The pool.
        folder: For its pid file.
    """
    options = ("-q", pool.queues, "-H", f"{pool.name}@%h", "-c", str(pool.concurrency))
    return ["celery", "worker", *options, "--pid", str(folder / f"{pool.name}.pid"), *FLAGS]


def serve(pool: Pool) -> int:
    """Be the Celery worker of a pool, as Airflow's own command starts it."""
    from airflow.cli import cli_parser

    arguments = command_line(pool, Path.cwd())
    sys.argv = ["airflow", *arguments]
    parsed = cli_parser.get_parser().parse_args(arguments)
    parsed.func(parsed)
    return 0


def preload() -> None:
    """Import all that the pools and their tasks need; opens no connection and starts no thread."""
    for module in PRELOAD:
        importlib.import_module(module)
    from airflow.cli import cli_parser
    from airflow.providers.celery.executors.celery_executor_utils import app
    from airflow.sdk.api.client import Client

    app.loader.import_default_modules()  # what workers are told to import (config/airflow.env), and what Airflow adds
    cli_parser.get_parser().parse_args(["celery", "worker"])  # imports the commands
    # Certificates are read once: each process that ran a task had its own copy, 20 MB of them.
    Client(base_url="http://127.0.0.1", token="").close()


def main(arguments: list[str]) -> int:
    """Import, then fork a process a pool; returns when all have ended.

    Args:
        arguments: `celery`, by which config/airflow_local_settings.py knows who forks tasks, and pools in the form of
            `Pool.parse`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if arguments[:1] != ["celery"] or len(arguments) < 2:
        sys.stderr.write("usage: worker_pools celery NAME:CONCURRENCY:QUEUE,QUEUE …\n")
        return 2
    pools = [Pool.parse(text) for text in arguments[1:]]
    preload()
    gc.collect()
    gc.freeze()  # a collection in a child would write to every object, and unshare its page
    return ForkedPools(pools, serve).run()


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(sys.argv[1:]))
