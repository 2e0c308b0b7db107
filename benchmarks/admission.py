"""Benchmark `admission`: from validated to confirmed, against publishing alone by Celery and dramatiq."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console

from benchmarks.errors import PeerFailed
from benchmarks.measure import Contender, Sample, circumstances, median, rounds
from benchmarks.own_services import PEERS_VHOST, empty, own_backends, own_vhost
from benchmarks.report import CHECKOUT, Result, Row, Target
from benchmarks.settings import BenchSettings
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import lane_rules

DEFAULT_ROUNDS: Final = 3
TIMEOUT_S: Final = 300
BATCH: Final = 1_000
BATCHES: Final = 10
SINGLES: Final = 1_000
#: Threads that submit at the same time, as those of a web server do.
CALLERS: Final = 16

OURS_BATCHES: Final = "collect-ops, batches"
OURS_CALLERS: Final = "collect-ops, 16 callers"
OURS_SINGLE: Final = "collect-ops, one by one"
CELERY: Final = "Celery, one by one"
CELERY_CALLERS: Final = "Celery, 16 callers"
OUTBOX: Final = "Celery behind an outbox, one by one"
OUTBOX_CALLERS: Final = "Celery behind an outbox, 16 callers"
DRAMATIQ: Final = "dramatiq, one by one"
DRAMATIQ_CALLERS: Final = "dramatiq, 16 callers"


def run(settings: BenchSettings, count: int | None, console: Console) -> Result:
    """Compare admissions a second with confirmed publications a second.

    Args:
        settings: the running stack; only its servers are needed.
        count: rounds; `DEFAULT_ROUNDS` when None.
        console: where progress is shown.
    """
    count = count or DEFAULT_ROUNDS
    before = circumstances()
    with own_backends(settings) as backends, own_vhost(settings, PEERS_VHOST) as peers:
        samples = rounds(_contenders(settings, backends, peers), count, console, "messages")
    return Result(
        name="admission",
        rows=rows(samples, count),
        samples=samples,
        circumstances=before,
        notes=(
            "Celery and dramatiq publish, persistent and confirmed, to a queue of the same broker; nothing else.",
            "Behind an outbox: one row and its commit before, one mark and its commit after each message.",
            "collect-ops validates, deduplicates, stores (with fsync), publishes the same way, and traces.",
        ),
    )


def rows(samples: Mapping[str, Sequence[Sample]], count: int) -> list[Row]:
    """The claims, from the samples of all contenders."""
    speed = {name: _per_s(taken) for name, taken in samples.items()}
    batches = "10 batches of 1,000 with parameters of their own"
    callers = "16 threads, each submitting one after the other; those that come together share a commit"
    single = "one thread, one after the other"
    return [
        _row("batches of 1,000", OURS_BATCHES, CELERY, speed, batches, count, at_least=10),
        _row("batches of 1,000", OURS_BATCHES, DRAMATIQ, speed, batches, count),
        _row(
            "single submissions of 16 callers",
            OURS_CALLERS,
            CELERY_CALLERS,
            speed,
            callers,
            count,
            at_least=1,
        ),
        _row("single submissions of 16 callers", OURS_CALLERS, DRAMATIQ_CALLERS, speed, callers, count),
        _row("single submissions of 16 callers", OURS_CALLERS, OUTBOX_CALLERS, speed, callers, count),
        _row("single submissions of one caller", OURS_SINGLE, CELERY, speed, single, count, at_least=1),
        _row("single submissions of one caller", OURS_SINGLE, DRAMATIQ, speed, single, count),
        _row("single submissions of one caller", OURS_SINGLE, OUTBOX, speed, single, count),
    ]


def _row(
    claim: str,
    ours: str,
    peer: str,
    speed: Mapping[str, float],
    measured: str,
    count: int,
    at_least: float | None = None,
) -> Row:
    return Row(
        claim=f"{claim} against {peer}",
        ours=speed[ours],
        peer=speed[peer],
        ratio=speed[ours] / speed[peer],
        target=None if at_least is None else Target(of="ratio", sign=">=", value=at_least),
        unit="/s",
        measured=measured,
        rounds=count,
    )


def _per_s(samples: Sequence[Sample]) -> float:
    return float(samples[0]["messages"]) / median(samples)


def _contenders(settings: BenchSettings, backends: Backends, peers_amqp: str) -> list[Contender]:
    def ours(name: str, submissions: int, *options: str) -> Contender:
        command = [
            *(sys.executable, "-m", "benchmarks.admission_process"),
            *("--dsn", backends.postgres_dsn, "--redis", backends.redis_url, "--amqp", backends.amqp_url),
            *("--submissions", str(submissions), *options),
        ]

        def once() -> Sample:
            empty(backends, lane_rules())
            return _measured(name, command)

        return Contender(name=name, run=once)

    def peer(name: str, script: str, callers: int, *options: str) -> Contender:
        command = [
            *(str(settings.python), str(CHECKOUT / "benchmarks" / "peers" / script)),
            *("--amqp", peers_amqp, "--messages", str(SINGLES), "--callers", str(callers), *options),
        ]
        return Contender(name=name, run=lambda: _measured(name, command))

    return [
        ours(OURS_BATCHES, BATCHES * BATCH, "--batch", str(BATCH)),
        peer(CELERY, "celery_publish.py", 1),
        peer(DRAMATIQ, "dramatiq_publish.py", 1),
        ours(OURS_CALLERS, SINGLES, "--callers", str(CALLERS)),
        peer(CELERY_CALLERS, "celery_publish.py", CALLERS),
        peer(DRAMATIQ_CALLERS, "dramatiq_publish.py", CALLERS),
        ours(OURS_SINGLE, SINGLES),
        peer(OUTBOX, "celery_publish.py", 1, "--dsn", backends.postgres_dsn),
        peer(OUTBOX_CALLERS, "celery_publish.py", CALLERS, "--dsn", backends.postgres_dsn),
    ]


def _measured(name: str, command: Sequence[str]) -> Sample:
    """What a process prints in its last line.

    Raises:
        PeerFailed: it ended with an error.
    """
    paths = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "plugins")])
    done = subprocess.run(
        command,
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise PeerFailed(peer=name, reason=(done.stdout + done.stderr)[-2000:])
    sample: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return sample
