"""Callers who come at the same time are served as one batch: a commit, a publication, for all of them.

One caller alone is served at once and notices nothing. Who comes while a batch is under way goes with the next one, and
where a batch had several callers, the next waits a moment for them to come back: sixteen at once take hardly longer
than two.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Given = TypeVar("Given")

#: Callers of one batch, at most.
LIMIT = 1000
#: Where the last batch had several callers, the next one waits so long, in seconds, for those who come back.
PAUSE_S = 0.001


@dataclass(slots=True, eq=False)
class _Caller(Generic[Asked, Given]):
    asked: Asked
    woken: threading.Event = field(default_factory=threading.Event)
    has_turn: bool = False
    answer: Given | None = None
    failure: BaseException | None = None


class Gathering(Generic[Asked, Given]):
    """Serves callers of many threads in batches, one batch after the other, each in the thread of one of its callers.

    Args:
        serve: Answers a batch, in order; what it raises is raised for each of its callers.
    """

    def __init__(self, serve: Callable[[Sequence[Asked]], Sequence[Given]]) -> None:
        self._serve = serve
        self._lock = threading.Lock()
        self._waiting: deque[_Caller[Asked, Given]] = deque()
        self._busy = False
        self._company = 1  # callers of the last batch

    def ask(self, asked: Asked) -> Given:
        """The answer to one caller; serves others on the way when it is this caller's turn to."""
        caller: _Caller[Asked, Given] = _Caller(asked)
        with self._lock:
            self._waiting.append(caller)
            caller.has_turn, self._busy = not self._busy, True
        if not caller.has_turn:
            caller.woken.wait()
        if caller.has_turn:
            self._serve_waiting()
        if caller.failure is not None:
            raise caller.failure
        return caller.answer  # type: ignore[return-value]  # served without a failure

    # Who has the turn waits among the others, in front, and nobody else takes from them: each caller is woken once,
    # served or to serve.

    def _serve_waiting(self) -> None:
        """Serve those who wait, this caller among them, and give the turn to who came meanwhile."""
        if self._company > 1:
            time.sleep(PAUSE_S)
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(LIMIT, len(self._waiting)))]
            self._company = len(batch)
        try:
            self._answer(batch)
        finally:
            with self._lock:
                self._busy = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].has_turn = True
                    self._waiting[0].woken.set()

    def _answer(self, batch: Sequence[_Caller[Asked, Given]]) -> None:
        try:
            answers = self._serve([caller.asked for caller in batch])
            for caller, answer in zip(batch, answers, strict=True):
                caller.answer = answer
        except BaseException as error:  # noqa: BLE001 - raised again for each caller
            for caller in batch:
                caller.failure = error
        for caller in batch:
            caller.woken.set()
