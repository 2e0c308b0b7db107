"""What can go wrong in a benchmark."""

from __future__ import annotations

from datetime import timedelta

from collect_ops.kernel.errors import CollectOpsError, Permanent


class PeerFailed(CollectOpsError, Permanent):
    """A contender did not do the job, so there is nothing to compare."""

    def __init__(self, *, peer: str, reason: str) -> None:
        self.peer = peer
        self.reason = reason
        super().__init__(f"{peer} failed: {reason}")


class UnknownBenchmark(CollectOpsError, Permanent):
    """There is no benchmark of that name."""

    def __init__(self, *, name: str, known: tuple[str, ...]) -> None:
        self.name = name
        super().__init__(f"no benchmark is called {name!r}; there are: {', '.join(known)}")


class KeysNotDistinct(CollectOpsError, Permanent):
    """Copies of the flights overlap in time, so that rows of two of them could have one key."""

    def __init__(self, *, first: str, last: str, shift: timedelta) -> None:
        self.first = first
        self.last = last
        self.shift = shift
        super().__init__(f"the flights span {first} to {last}; a copy is only {shift.days} days later")
