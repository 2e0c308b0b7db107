"""Benchmark `heartbeats`: the heartbeats of 1,000 nodes, taken into the registry and the machine log."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import Final

from rich.console import Console

from benchmarks.errors import PeerFailed
from benchmarks.measure import Contender, Sample, Stopwatch, circumstances, median, rounds
from benchmarks.own_services import own_backends
from benchmarks.report import Result, Row, Target
from benchmarks.settings import BenchSettings
from collect_ops.broker.consumer import Consumer
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import LaneRules, lane_rules
from collect_ops.nodes.registry import Names, run_once
from collect_ops.nodes.rules import PlacementRules
from collect_ops.storage import connect

DEFAULT_ROUNDS: Final = 3
NODES: Final = 1_000
BLOCK: Final = 500

OURS: Final = "collect-ops, a pass of heartbeat_ingest"
TAKE: Final = "taken and acked, nothing done"


def run(settings: BenchSettings, count: int | None, console: Console) -> Result:
    """Compare a pass with taking the same messages.

    Args:
        settings: the running stack; only its servers are needed.
        count: rounds; `DEFAULT_ROUNDS` when None.
        console: where progress is shown.
    """
    count = count or DEFAULT_ROUNDS
    before = circumstances()
    rules = lane_rules()
    with own_backends(settings) as backends:
        contenders = [
            Contender(name=OURS, run=partial(ingest, backends, rules)),
            Contender(name=TAKE, run=partial(take, backends, rules)),
        ]
        samples = rounds(contenders, count, console, "heartbeats")
    seconds = {name: median(taken) for name, taken in samples.items()}
    row = Row(
        claim=f"heartbeats of {NODES:,} nodes taken in, against {TAKE}",
        ours=seconds[OURS],
        peer=seconds[TAKE],
        ratio=seconds[TAKE] / seconds[OURS],
        target=Target(of="ours", sign="<=", value=30),
        unit="s",
        measured="validated, registry and machine log written, acked after the commit, every node's state worked out; "
        "the target is the time between two heartbeats",
        rounds=count,
    )
    return Result(name="heartbeats", rows=[row], samples=samples, circumstances=before)


def publish(backends: Backends, rules: LaneRules, nodes: int) -> None:
    """One heartbeat of each node into an empty queue, its registry empty."""
    with connect(backends.postgres_dsn, application_name="benchmark") as connection:
        connection.execute("TRUNCATE collect.node, collect.node_sample, collect.node_log")
    now = datetime.now(UTC).isoformat()
    messages = [
        OutgoingMessage(
            exchange=rules.broker.heartbeats,
            routing_key="n",
            body=json.dumps(_heartbeat(number, now)).encode(),
        )
        for number in range(nodes)
    ]
    with Publisher(backends.amqp_url) as publisher:
        done = publisher.publish(messages)
    if len(done.confirmed) != nodes:
        raise PeerFailed(peer=OURS, reason=f"{len(done.confirmed)} of {nodes} heartbeats were confirmed")


def ingest(backends: Backends, rules: LaneRules, nodes: int = NODES) -> Sample:
    """What the DAG's task does.

    Raises:
        PeerFailed: some were not taken in.
    """
    publish(backends, rules, nodes)
    names = Names(queue=rules.broker.heartbeats, dead_exchange=rules.broker.dead_queue)
    with Stopwatch() as watch:
        done = run_once(backends, PlacementRules(), names, time_limit_s=60)
    if (done.heartbeats, done.nodes, done.refused) != (nodes, nodes, 0):
        raise PeerFailed(
            peer=OURS, reason=f"took in {done.heartbeats} of {nodes}, {done.refused} were refused"
        )
    return {"seconds": watch.seconds, "heartbeats": done.heartbeats}


def take(backends: Backends, rules: LaneRules, nodes: int = NODES) -> Sample:
    """Take the same messages in the same blocks, and ack them."""
    publish(backends, rules, nodes)
    taken = 0
    with Stopwatch() as watch, Consumer(backends.amqp_url) as consumer:
        while block := consumer.take(rules.broker.heartbeats, BLOCK):
            consumer.ack([delivery.tag for delivery in block])
            taken += len(block)
    if taken != nodes:
        raise PeerFailed(peer=TAKE, reason=f"took {taken} of {nodes}")
    return {"seconds": watch.seconds, "heartbeats": taken}


def _heartbeat(number: int, now: str) -> dict[str, object]:
    return {
        "schema": 1, "node_id": f"n{number}", "machine": f"m{number}", "boot_id": "b1", "started_at": now, "seq": 1,
        "sent_at": now, "name": f"host-{number}", "address": "10.0.0.1", "version": "1", "slots": 8,
        "cpu_percent": 10.0, "memory_percent": 20.0, "memory_bytes": 1, "disk_percent": 30.0, "disk_free_bytes": 1,
        "load_1": 0.5, "received_bytes_per_s": 1.0, "sent_bytes_per_s": 1.0, "workers_bytes": 1, "groups": 0,
    }  # fmt: skip
