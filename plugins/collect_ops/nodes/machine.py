"""What a machine is, and how it is doing, by psutil."""

from __future__ import annotations

import hashlib
import math
import os
import socket
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

#: Words on a command line that tell a worker: Celery's, and the LocalExecutor's processes under a scheduler.
WORKER_WORDS = (("celery", "worker"), ("airflow", "scheduler"))
_MACHINE_ID = Path("/etc/machine-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How a machine does; see `Heartbeat` for the fields."""

    cpu_percent: float
    memory_percent: float
    memory_bytes: int
    disk_percent: float
    disk_free_bytes: int
    load_1: float
    received_bytes_per_s: float
    sent_bytes_per_s: float
    workers_bytes: int


#: A look at the processors that is younger says how they do now.
_GLANCE_S = 1.0
#: The kernel walks every page of every worker to weigh them: 0.4 s of processor time for two dozen processes.
WEIGH_EVERY_S = 300.0


class Sampler:
    """Takes samples; rates are those since the sample before.

    Args:
        path: On the file system that workers write to.
    """

    def __init__(self, path: str | os.PathLike[str] = "/") -> None:
        self._path = os.fspath(path)
        psutil.cpu_percent()  # the first answer is about no time at all
        self._cpu_percent, self._looked_at = 0.0, -math.inf
        self._workers_bytes, self._weighed_at = 0, -math.inf
        self._at, self._received, self._sent = time.monotonic(), *_network()

    def look(self) -> float:
        """How busy the processors were since the last look, in percent."""
        self._cpu_percent, self._looked_at = _percent(psutil.cpu_percent()), time.monotonic()
        return self._cpu_percent

    def sample(self) -> Sample:
        """How the machine does now."""
        if time.monotonic() - self._looked_at >= _GLANCE_S:
            self.look()
        now, (received, sent) = time.monotonic(), _network()
        elapsed_s = max(1e-3, now - self._at)
        # Counters begin anew when an interface does.
        rates = [
            max(0, new - old) / elapsed_s for new, old in ((received, self._received), (sent, self._sent))
        ]
        self._at, self._received, self._sent = now, received, sent
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(self._path)
        # An agent may be there before its worker: it looks until there is something to weigh.
        if not self._workers_bytes or now - self._weighed_at >= WEIGH_EVERY_S:
            self._workers_bytes, self._weighed_at = workers_bytes(), now
        return Sample(
            cpu_percent=self._cpu_percent,
            memory_percent=_percent(memory.percent),
            memory_bytes=memory.total,
            disk_percent=_percent(disk.percent),
            disk_free_bytes=disk.free,
            load_1=psutil.getloadavg()[0],
            received_bytes_per_s=rates[0],
            sent_bytes_per_s=rates[1],
            workers_bytes=self._workers_bytes,
        )


def workers_bytes() -> int:
    """Memory of the worker processes on this machine, those that they started included.

    What processes share by fork is counted once (PSS): a worker's pools have most of their memory in common.
    """
    total, counted = 0, set()
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if not any(_all_in(needed, words) for needed in WORKER_WORDS):
            continue
        for each in (process, *_children(process)):
            if each.pid in counted:
                continue
            counted.add(each.pid)
            total += _proportional_bytes(each)
    return total


def machine_id() -> str:
    """Tells this machine from others, over restarts and changes of its address; not the id itself, which is secret."""
    for path in (_MACHINE_ID, _BOOT_ID):
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text:
            return hashlib.sha256(f"collect-ops {text}".encode()).hexdigest()[:16]
    return f"{uuid.getnode():012x}"


def node_id_of(configured: str | None) -> str:
    """The id of this node: what is configured, else one of the machine's."""
    return configured or f"node-{machine_id()[:12]}"


def address_towards(url: str) -> str:
    """This machine's address, as the host of a URL sees it. Sends nothing.

    Args:
        url: With a host and port, such as the broker's.
    """
    parts = urlsplit(url)
    try:
        family, _, _, _, target = socket.getaddrinfo(
            parts.hostname or "127.0.0.1", parts.port or 5672, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:
        return "unknown"


def _proportional_bytes(process: psutil.Process) -> int:
    try:
        try:
            return int(process.memory_full_info().pss)
        except psutil.AccessDenied:  # another user's: its resident memory is all that is told
            return int(process.memory_info().rss)
    except psutil.NoSuchProcess:  # it has ended meanwhile
        return 0


def _network() -> tuple[int, int]:
    counters = psutil.net_io_counters(pernic=True)
    real = [each for name, each in counters.items() if name != "lo"]
    return sum(each.bytes_recv for each in real), sum(each.bytes_sent for each in real)


def _percent(value: float) -> float:
    return min(100.0, max(0.0, value))


def _children(process: psutil.Process) -> Iterable[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return ()


def _all_in(needed: tuple[str, ...], words: list[str]) -> bool:
    return all(any(word in each for each in words) for word in needed)
