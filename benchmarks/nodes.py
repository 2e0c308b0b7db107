"""Benchmark `nodes`: the demo's rows through one worker host and through three, on this machine.

A stack of its own with CeleryExecutor, each worker in a network namespace; where the whole machine is the limit already
with one, three bring nothing, and this says what they cost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks.errors import PeerFailed
from benchmarks.measure import Sample, circumstances, median
from benchmarks.report import CHECKOUT, Result, Row
from benchmarks.settings import BenchSettings

DEFAULT_ROUNDS: Final = 3
HOME: Final = CHECKOUT / ".stack" / "bench-nodes"
COUNTS: Final = (1, 3)
#: Not counted: workers import and connect at their first task.
WARM_UP: Final = 1


def run(_: BenchSettings, count: int | None, console: Console) -> Result:
    """Run the demo on stacks with one node and with three.

    Args:
        count: rounds; `DEFAULT_ROUNDS` when None.
        console: where progress is shown.
    """
    count = count or DEFAULT_ROUNDS
    before = circumstances()
    samples: dict[str, list[Sample]] = {}
    try:
        for nodes in COUNTS:
            console.print(f"  {name(nodes)}: starting")
            stack("up", NODES=str(nodes))
            taken = [collect() for _ in range(WARM_UP + count)][WARM_UP:]
            samples[name(nodes)] = taken
            told = ", ".join(f"{each['seconds']:.1f} s" for each in taken)
            console.print(f"  {name(nodes)}: {told}")
    finally:
        stack("clean", "--yes")
    seconds = {key: median(taken) for key, taken in samples.items()}
    one, three = (seconds[name(nodes)] for nodes in COUNTS)
    row = Row(
        claim="336,776 rows through three worker hosts, against one",
        ours=three,
        peer=one,
        ratio=one / three,
        unit="s",
        measured="submission to COMPLETED, two shard groups, on the processors of one machine",
        rounds=count,
    )
    return Result(name="nodes", rows=[row], samples=samples, circumstances=before)


def name(nodes: int) -> str:
    """What a contender is called."""
    return f"{nodes} worker host{'s' if nodes > 1 else ''}"


def stack(*arguments: str, **variables: str) -> str:
    """Run `python -m stack` on the benchmark's own stack; returns what it said.

    Raises:
        PeerFailed: it failed.
    """
    return _python("stack", *arguments, **variables)


def collect() -> Sample:
    """One run of the demo.

    Raises:
        PeerFailed: it failed, or rows are missing.
    """
    _python("demo", "--force")
    summary = json.loads((HOME / "summary.json").read_text())
    if not summary["ok"]:
        raise PeerFailed(peer="demo", reason="; ".join(summary["faults"]))
    return {"seconds": summary["seconds"], "rows": summary["rows"]}


def _python(module: str, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=CHECKOUT, env={**_environment(), **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise PeerFailed(peer=f"python -m {module}", reason=(done.stdout + done.stderr)[-2000:])
    return done.stdout


def _environment() -> Mapping[str, str]:
    """Ours, without what names another stack."""
    foreign = ("AIRFLOW_", "COLLECT_", "PG")
    own = {k: v for k, v in os.environ.items() if not k.startswith(foreign) and not k.endswith("_PORT")}
    return {**own, "STACK_HOME": str(Path(HOME))}
