"""A claim in a process of its own, which is killed at a chosen moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
from enum import StrEnum
from typing import Any

from collect_ops.broker.consumer import Consumer
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.claim import claim
from collect_ops.lanes.rules import lane_rules
from collect_ops.lanes.runs import RunState


class Moment(StrEnum):
    """When the process is killed."""

    MESSAGES_TAKEN = "messages taken, nothing moved"
    COMMITTED = "committed, nothing acked"
    FIRST_RUN = "acked, no run started"


def _die(*_args: object, **_options: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _DeadlyRuns:
    def start(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        _die()

    def state(self, dag_id: str, run_id: str) -> RunState:
        return RunState.MISSING


def _claim(backends: Backends, moment: Moment) -> None:
    if moment is Moment.MESSAGES_TAKEN:
        take = Consumer.take

        def take_and_die(self: Consumer, *args: Any, **options: Any) -> Any:
            if take(self, *args, **options):
                _die()

        Consumer.take = take_and_die  # type: ignore[method-assign]
    elif moment is Moment.COMMITTED:
        Consumer.give_back = _die  # type: ignore[method-assign]
    claim("normal", backends, lane_rules(), _DeadlyRuns(), actor="killed")


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


def claim_and_die(backends: Backends, moment: Moment) -> None:
    """Claim the normal lane in a process that is killed at a moment.

    Raises:
        AssertionError: It ended otherwise.
    """
    process = _context.Process(target=_claim, args=(backends, moment), daemon=True)
    process.start()
    process.join(30)
    if process.exitcode != -signal.SIGKILL:
        process.kill()
        raise AssertionError(f"the claim's process ended with {process.exitcode}, not by a kill at: {moment}")
