"""What can go wrong in a benchmark."""

from __future__ import annotations

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
