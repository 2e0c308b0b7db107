"""A shard group in a process of its own, forked from a server that has imported what it needs."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from collect_ops.collectors.endpoint import Endpoint
from collect_ops.execution.group import run_group
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import lane_rules
from tests.plugins.integration.world import World

#: A killed process's lease keeps the next holder waiting until it expires: thirty seconds as shipped.
LEASE_S = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the process has to know."""

    run_id: str
    group_no: int
    backends: Backends
    base_url: str


def work_of(world: World, run_id: str, group_no: int) -> Work:
    return Work(run_id=run_id, group_no=group_no, backends=world.backends, base_url=world.endpoint.base_url)


def run(work: Work) -> None:
    """Run the group; the child's side."""
    endpoint = Endpoint(base_url=work.base_url, allow_private_networks=True)
    asyncio.run(
        run_group(
            work.run_id,
            work.group_no,
            work.backends,
            lane_rules(),
            lambda _: endpoint,
            node="test",
            actor="test",
            lease_s=LEASE_S,
        )
    )


def run_measured(work: Work, peaks: multiprocessing.SimpleQueue[int]) -> None:
    """Run the group; puts the process's peak memory into a queue, in kilobytes."""
    run(work)
    peaks.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


_context = multiprocessing.get_context("forkserver")
# One server for all tests of a process; `world` imports what any of them runs.
_context.set_forkserver_preload([World.__module__])


def start(work: Work) -> BaseProcess:
    """Start a group in a process of its own."""
    process = _context.Process(target=run, args=(work,), daemon=True)
    process.start()
    return process


def peak_kb(work: Work) -> int:
    """Run a group to its end in a process of its own; returns its peak memory in kilobytes."""
    peaks = _context.SimpleQueue()
    process = _context.Process(target=run_measured, args=(work, peaks), daemon=True)
    process.start()
    process.join(100)
    if process.exitcode != 0:
        process.kill()
        raise AssertionError(f"the group's process ended with {process.exitcode}")
    return int(peaks.get())
