"""Benchmark `idle`: what a stack costs that has nothing to do, beside Airflow with an empty folder of DAGs.

Counted in CPU time of all processes, both stacks at the same time. A processor that is shared with other work does less
in that time, so the machine is best left alone all the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psutil
from rich.console import Console

from benchmarks.errors import PeerFailed
from benchmarks.measure import circumstances
from benchmarks.report import CHECKOUT, Result, Row, Target
from benchmarks.settings import BenchSettings
from collect_ops.orchestrator.client import AirflowClient
from collect_ops.sources.examples import examples_are_on
from stack import processes
from stack.environment import DAGS_FOLDER
from stack.layout import Layout
from stack.settings import HOST, load

WARM_UP_MIN: Final = 10.0
MINUTES: Final = 15.0
#: Named in the environment: shorter ones for a look, which is not a result.
WARM_UP_VARIABLE: Final = "IDLE_WARM_UP_MIN"
MINUTES_VARIABLE: Final = "IDLE_MINUTES"
#: What runs beside Airflow because of us, and is no part of `Airflow alone`.
OURS: Final = frozenset({"agent", "watchdog"})
MOST_OVERHEAD_PERCENT: Final = 6.0
MOST_RUNS_PER_HOUR: Final = 130.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """What a stack cost.

    Attributes:
        percent: of a core, by program.
        runs_per_hour: Airflow runs that were started.
    """

    percent: Mapping[str, float]
    runs_per_hour: float


def run(settings: BenchSettings, count: int | None, console: Console) -> Result:
    """Count the CPU time of the running stack, and beside it that of a stack of its own without DAGs.

    Args:
        settings: the running stack; every DAG of it is unpaused.
        count: ignored: the length of the measurement is `MINUTES`.
        console: where progress is shown.
    """
    del count
    before = circumstances()
    warm_up_s = 60 * float(os.environ.get(WARM_UP_VARIABLE, WARM_UP_MIN))
    seconds = 60 * float(os.environ.get(MINUTES_VARIABLE, MINUTES))
    stack = settings.stack
    airflow = AirflowClient(stack.airflow_url, stack.airflow_user, stack.airflow_password)
    unpause_all(airflow)
    # Side by side: neither keeps a processor busy, and what else the machine does slows both alike.
    with (
        empty_stack(stack.home.with_name(f"{stack.home.name}-idle")) as layout,
        ThreadPoolExecutor(max_workers=2) as pool,
    ):
        ours = pool.submit(
            observe, Layout(home=stack.home), airflow, warm_up_s, seconds, console, "with the DAGs"
        )
        empty = client_of(layout)
        bare = pool.submit(observe, layout, empty, warm_up_s, seconds, console, "Airflow alone")
        with_dags, alone = ours.result(), bare.result()
        refuse_dags(empty)
    return Result(
        name="idle",
        rows=rows(with_dags, alone, seconds / 60),
        samples={
            "with the DAGs": [{**with_dags.percent, "runs_per_hour": with_dags.runs_per_hour}],
            "Airflow alone": [dict(alone.percent)],
        },
        circumstances=before,
        notes=[
            f"Percent of one core, over {seconds / 60:g} minutes, beginning after {warm_up_s / 60:g}.",
            f"The examples are {'on' if examples_are_on() else 'off, as shipped'}.",
        ],
    )


def rows(with_dags: Idle, alone: Idle, minutes: float) -> list[Row]:
    """The claims."""
    ours = sum(with_dags.percent.values())
    bare = sum(percent for program, percent in alone.percent.items() if program not in OURS)
    how = f"CPU time of all processes, PostgreSQL, Redis and RabbitMQ included, over {minutes:g} minutes"
    return [
        Row(
            claim="an idle stack, more than Airflow alone",
            ours=ours - bare,
            target=Target(of="ours", sign="<=", value=MOST_OVERHEAD_PERCENT),
            unit="% of a core",
            measured=f"{how}; every DAG unpaused",
            rounds=1,
        ),
        Row(claim="an idle stack", ours=ours, peer=bare, unit="% of a core", measured=how, rounds=1),
        Row(
            claim="Airflow runs of an idle stack",
            ours=with_dags.runs_per_hour,
            target=Target(of="ours", sign="<=", value=MOST_RUNS_PER_HOUR),
            unit="an hour",
            measured=f"runs that began in {minutes:g} minutes",
            rounds=1,
        ),
    ]


def observe(
    layout: Layout,
    airflow: AirflowClient,
    warm_up_s: float,
    seconds: float,
    console: Console,
    name: str,
) -> Idle:
    """Wait until the stack has come to rest, then count."""
    console.print(f"  {name}: {warm_up_s / 60:g} minutes of rest, then {seconds / 60:g} that count")
    time.sleep(warm_up_s)
    began, first, since = time.monotonic(), cpu_seconds(layout), datetime.now(UTC)
    time.sleep(seconds)
    last, took_s = cpu_seconds(layout), time.monotonic() - began
    percent = {program: 100 * (last[program] - first.get(program, 0.0)) / took_s for program in sorted(last)}
    runs = runs_since(airflow, since)
    shown = [f"    {program:<14}{value:6.2f} %" for program, value in percent.items()]
    shown.append(f"    {'total':<14}{sum(percent.values()):6.2f} %, {runs * 3600 / took_s:.0f} runs an hour")
    console.print("\n".join([f"  {name}:", *shown]))
    return Idle(percent=percent, runs_per_hour=runs * 3600 / took_s)


def cpu_seconds(layout: Layout) -> dict[str, float]:
    """CPU time so far by program; that of children which have ended is in their parents'."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for process in psutil.process_iter():
        try:
            program = processes.program_of(process, layout)
            if program is not None:
                times = process.cpu_times()
                seconds[program] += times.user + times.system + times.children_user + times.children_system
        except psutil.Error:
            continue  # it has just ended: its parent has its time
    return dict(seconds)


def runs_since(airflow: AirflowClient, since: datetime) -> int:
    """Airflow runs that began since a moment."""
    path = f"/dags/~/dagRuns?limit=1&start_date_gte={quote(since.isoformat())}"
    return int(airflow.demand("GET", path, action="count runs").json()["total_entries"])


def client_of(layout: Layout) -> AirflowClient:
    """Airflow's REST API of a stack on this machine."""
    stack = load(layout)
    address = f"http://{HOST}:{stack.ports.api_server}"
    return AirflowClient(address, "admin", stack.secrets["AIRFLOW_ADMIN_PASSWORD"])


def refuse_dags(airflow: AirflowClient) -> None:
    """See that Airflow alone was alone: it must not be ours that is compared with ours.

    Raises:
        PeerFailed: it has DAGs.
    """
    dags = int(airflow.demand("GET", "/dags?limit=1", action="count DAGs").json()["total_entries"])
    if dags:
        raise PeerFailed(peer="Airflow alone", reason=f"it has {dags} DAGs")


def unpause_all(airflow: AirflowClient) -> None:
    """Let every DAG run."""
    airflow.demand("PATCH", "/dags?dag_id_pattern=%25", {"is_paused": False}, action="unpause all DAGs")


@contextmanager
def empty_stack(home: Path) -> Iterator[Layout]:
    """A stack without DAGs, for the length of the block; its data is kept for the next time."""
    with tempfile.TemporaryDirectory(prefix="no-dags-") as folder:
        environment = {**os.environ, "STACK_HOME": str(home), DAGS_FOLDER: folder}
        _stack(environment, "up")
        try:
            yield Layout(home=home)
        finally:
            _stack(environment, "down")


def _stack(environment: Mapping[str, str], command: str) -> None:
    subprocess.run([sys.executable, "-m", "stack", command], cwd=CHECKOUT, env=environment, check=True)
