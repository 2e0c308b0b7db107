"""Admission in a process of its own: in batches or one by one. Prints `{"messages": …, "seconds": …}`.

Every submission has parameters of its own, so every one is admitted. Seconds run from the first validation to the
last confirm and the commit of the last trace; what the process needs to start is not counted, as it is not for the
peers.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from collect_ops.admission.model import Admission, Submission
from collect_ops.admission.service import AdmissionService
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import lane_rules
from collect_ops.lanes.runs import RunState
from collect_ops.storage import connect

SOURCE: Final = "example_offset"
FIRST: Final = datetime(2000, 1, 1, tzinfo=UTC)
UNCONFIRMED_SQL: Final = "select count(*) as n from collect.task where confirmed_generation < generation"


class NoRuns:
    """Where lanes would be woken: whether one has to be is still found out, but no Airflow is asked."""

    def start(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        """Nothing starts."""

    def state(self, dag_id: str, run_id: str) -> RunState:  # noqa: ARG002
        """Nothing runs."""
        return RunState.MISSING


def submissions(count: int, first: int = 0, *, priority: int | None = None) -> list[Submission]:
    """So many submissions, no two of them equal.

    Args:
        count: how many.
        first: number of the first; the number makes the parameters.
        priority: of each; the source's when None.
    """
    run = uuid.uuid4().hex[:12]
    return [
        Submission(
            source=SOURCE,
            params={"since": (FIRST + timedelta(seconds=number)).isoformat()},
            priority=priority,
            request_id=f"bench:{run}:{number}",
            submitted_by="benchmark",
            submitted_via="cli",
        )
        for number in range(first, first + count)
    ]


def main() -> None:
    """Read the command line, admit, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", required=True, help="a database of its own")
    parser.add_argument("--redis", required=True)
    parser.add_argument("--amqp", required=True)
    parser.add_argument("--submissions", type=int, required=True)
    parser.add_argument("--batch", type=int, default=1, help="submissions of a batch; 1 admits one by one")
    parser.add_argument("--callers", type=int, default=1, help="threads that admit at the same time")
    parser.add_argument("--profile", help="write cProfile's figures to this file")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    backends = Backends(postgres_dsn=arguments.dsn, redis_url=arguments.redis, amqp_url=arguments.amqp)
    work = submissions(arguments.submissions)
    with AdmissionService(backends, lane_rules(), NoRuns()) as service:
        # Opens its connections, as the peers have theirs.
        service.admit_batch(submissions(1, arguments.submissions))
        with _profiled(arguments.profile):
            seconds = admit(service, work, arguments.batch, arguments.callers)
    with connect(backends.postgres_dsn) as connection:
        row = connection.execute(UNCONFIRMED_SQL).fetchone()
    if row is None or row["n"]:
        raise SystemExit(f"not confirmed: {row}")
    print(json.dumps({"messages": len(work), "seconds": seconds}))


def admit(service: AdmissionService, work: Sequence[Submission], batch: int, callers: int) -> float:
    """Admit all of it; returns the seconds that took, and fails when one was not admitted.

    Args:
        service: open.
        work: the submissions.
        batch: submissions of a batch; with 1 they are admitted one by one.
        callers: threads that admit at the same time.
    """
    batches = [work[at : at + batch] for at in range(0, len(work), batch)]

    def one(part: Sequence[Submission]) -> Sequence[object]:
        return service.admit_batch(part) if batch > 1 else [service.admit(part[0])]

    with ThreadPoolExecutor(callers) as pool:
        spread = map if callers == 1 else pool.map
        began = time.perf_counter()
        answers = [answer for part in spread(one, batches) for answer in part]
        seconds = time.perf_counter() - began
    refused = [answer for answer in answers if not isinstance(answer, Admission) or answer.duplicate_of]
    if refused:
        raise SystemExit(f"{len(refused)} were not admitted, such as: {refused[0]}")
    return seconds


@contextmanager
def _profiled(path: str | None) -> Iterator[None]:
    """With a path: figures of cProfile about the block in this thread."""
    if path is None:
        yield
        return
    profiler = cProfile.Profile()
    with profiler:
        yield
    profiler.dump_stats(path)


if __name__ == "__main__":
    main()
