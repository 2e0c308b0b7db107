"""Health of a container whose process can live and do nothing, and its end when that lasts: Compose restarts what ends.

    python -m stack.container_watch SchedulerJob | DagProcessorJob | TriggererJob | worker

The native stack has a watchdog; Compose restarts no container for being unhealthy. So its health check, which Compose
calls every half minute, looks at the heartbeat that a loop sends (or at a worker's consumer), and ends the container's
process when all looks of a while have found it unwell, and it had been well. While PostgreSQL or RabbitMQ do not
answer, nobody is judged. Exit status 0: well.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

import psutil
import psycopg

from stack import env_files
from stack.schedulers import own_names

KINDS = ("SchedulerJob", "DagProcessorJob", "TriggererJob", "worker")
#: As `healthcheck.interval` of docker-compose.yaml; three times that without a look, and earlier ones count no more.
LOOK_EVERY_S = 30.0
#: Between the first look that finds it unwell and the one that ends it: a loop that stood still for a minute and more;
#: a worker that is being stopped consumes nothing for as long as `stop_grace_period` says.
SILENT_JOB_S = 45.0
IDLE_WORKER_S = 90.0
#: The same for what has not been well since its start: a slow start that is ended begins anew.
STARTS_WITHIN_S = 1200.0
#: A heartbeat that is older is no hiccup; one is sent every 5 s.
HEARTBEAT_S = 30.0
#: Between SIGTERM and SIGKILL: a loop that stands still, a worker with tasks; less than `healthcheck.timeout`.
JOB_ENDS_WITHIN_S = 5.0
WORKER_ENDS_WITHIN_S = 60.0
_HEARTBEAT = """
SELECT min(extract(epoch FROM now() - latest_heartbeat))::float8 FROM job
WHERE job_type = %s AND state = 'running' AND hostname = ANY(%s)
"""


class Verdict(StrEnum):
    """What a look found; `UNKNOWN`: what has to be asked did not answer."""

    WELL = "well"
    UNWELL = "unwell"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A verdict and its reason."""

    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """What earlier looks at a process found. Pure: looks and times come in.

    Args:
        pid: The process.
        began: When it was started, seconds since 1970.
        was_well: It has been well since.
        unwell_since: Of an unbroken series of looks, by a clock that never goes back.
        looked_at: By the same clock.
    """

    pid: int
    began: float
    was_well: bool = False
    unwell_since: float | None = None
    looked_at: float | None = None

    def after(self, verdict: Verdict, now: float) -> Patience:
        """With one more look."""
        slept = self.looked_at is not None and now - self.looked_at > 3 * LOOK_EVERY_S
        since = None if slept or verdict is not Verdict.UNWELL else self.unwell_since
        return replace(
            self,
            was_well=self.was_well or verdict is Verdict.WELL,
            unwell_since=now if since is None and verdict is Verdict.UNWELL else since,
            looked_at=now,
        )

    def is_exhausted(self, limit_s: float) -> bool:
        """Whether it has been unwell for too long.

        Args:
            limit_s: Seconds, of a process that had been well.
        """
        if self.unwell_since is None or self.looked_at is None:
            return False
        return self.looked_at - self.unwell_since >= (limit_s if self.was_well else STARTS_WITHIN_S)


def look_at_job(job_type: str, uptime_s: float, places: Mapping[str, str]) -> Look:
    """Whether the loop of a scheduler, dag-processor or triggerer in this container sends its heartbeat.

    Args:
        job_type: As Airflow's table `job` has it.
        uptime_s: Of the process: an earlier heartbeat is of another one.
        places: Where the database is.
    """
    address = env_files.database(places).replace("postgresql+psycopg2", "postgresql")
    try:
        with psycopg.connect(address, connect_timeout=5, autocommit=True) as connection:
            row = connection.execute(_HEARTBEAT, (job_type, own_names())).fetchone()
    except psycopg.Error as error:
        return Look(verdict=Verdict.UNKNOWN, reason=f"PostgreSQL did not answer: {error}")
    if row is None or row[0] is None or row[0] >= uptime_s:
        return Look(verdict=Verdict.UNWELL, reason="no heartbeat since its start")
    if row[0] > HEARTBEAT_S:
        return Look(verdict=Verdict.UNWELL, reason=f"last heartbeat {row[0]:.0f} s ago")
    return Look(verdict=Verdict.WELL)


def look_at_worker(queue: str, places: Mapping[str, str]) -> Look:
    """Whether RabbitMQ has a consumer of a worker's queue. Asked by AMQP: a node may not ask the management API."""
    import pika
    from pika.exceptions import AMQPError, ChannelClosedByBroker

    try:
        with pika.BlockingConnection(pika.URLParameters(broker_url(places))) as connection:
            declared = connection.channel().queue_declare(queue, passive=True)
    except ChannelClosedByBroker as error:
        verdict = Verdict.UNWELL if error.reply_code == 404 else Verdict.UNKNOWN
        return Look(verdict=verdict, reason=f"queue {queue}: {error.reply_text}")
    except (AMQPError, OSError) as error:
        return Look(verdict=Verdict.UNKNOWN, reason=f"RabbitMQ did not answer: {error!r}")
    if not declared.method.consumer_count:
        return Look(verdict=Verdict.UNWELL, reason=f"nobody consumes from queue {queue}")
    return Look(verdict=Verdict.WELL)


def broker_url(places: Mapping[str, str]) -> str:
    """Where Celery's messages are, with time-outs for a question."""
    return f"{env_files.celery(places)['AIRFLOW__CELERY__BROKER_URL']}?socket_timeout=5&blocked_connection_timeout=5"


def main_process(init: int) -> psutil.Process | None:
    """What the container runs below its init; None when that has ended."""
    # The first: what a process leaves when it ends becomes a child of init, too.
    return min(psutil.Process(init).children(), key=psutil.Process.create_time, default=None)


def remember(process: psutil.Process, verdict: Verdict, file: Path, now: float) -> Patience:
    """One more look at a process, kept for the next; what an earlier process in the container was, counts no more."""
    own = Patience(pid=process.pid, began=process.create_time())
    known = _recalled(file)
    patience = known if known is not None and (known.pid, known.began) == (own.pid, own.began) else own
    patience = patience.after(verdict, now)
    written = file.with_suffix(".new")
    written.write_text(json.dumps(asdict(patience)))
    written.replace(file)
    return patience


def _recalled(file: Path) -> Patience | None:
    try:
        return Patience(**json.loads(file.read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # none yet, or half of one: begin anew
        return None


def end(process: psutil.Process, within_s: float) -> None:
    """End a process, by SIGKILL what does not end by SIGTERM."""
    try:
        process.send_signal(signal.SIGTERM)
        process.wait(within_s)
    except psutil.TimeoutExpired:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    except psutil.NoSuchProcess:
        return  # it has ended by itself


def main(
    arguments: list[str],
    *,
    init: int = 1,
    folder: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """One look at the container's process."""
    kind = arguments[0] if len(arguments) == 1 else ""
    if kind not in KINDS:
        print(f"{' '.join(arguments)!r} cannot be used; allowed: {', '.join(KINDS)}", file=sys.stderr)
        return 2
    process = main_process(init)
    if process is None:
        print("nothing runs here", file=sys.stderr)
        return 1
    if kind == "worker":
        queues = os.environ.get("COLLECT_WORKER_QUEUES") or f"node.{own_node_id()}"
        look, limit_s, within_s = (
            look_at_worker(queues.split(",")[0], os.environ), IDLE_WORKER_S, WORKER_ENDS_WITHIN_S,
        )  # fmt: skip
    else:
        uptime_s = time.time() - process.create_time()
        look, limit_s, within_s = look_at_job(kind, uptime_s, os.environ), SILENT_JOB_S, JOB_ENDS_WITHIN_S
    file = (folder or Path(tempfile.gettempdir())) / "collect-ops-health.json"
    if remember(process, look.verdict, file, clock()).is_exhausted(limit_s):
        # To the container's log: what a health check prints, `docker inspect` alone shows.
        _say(init, f"ending process {process.pid}, which has been unwell: {look.reason}")
        end(process, within_s)
    if look.verdict is Verdict.WELL:
        return 0
    print(look.reason, file=sys.stderr)
    return 1


def own_node_id() -> str:
    """As the entry point names the node."""
    return (os.environ.get("COLLECT_NODE_ID") or os.environ["HOSTNAME"]).lower()


def _say(init: int, line: str) -> None:
    print(line, file=sys.stderr)
    try:
        Path(f"/proc/{init}/fd/2").write_text(f"{line}\n")
    except OSError as error:
        print(f"the container's log did not take it: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
