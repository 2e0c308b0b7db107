"""What can go wrong in the demonstration, one class a case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from collect_ops.kernel.errors import CollectOpsError, Permanent, Transient


class DatasetUnavailable(CollectOpsError, Transient):
    """The data package could not be fetched."""

    def __init__(self, *, package: str, reason: str) -> None:
        self.package = package
        self.reason = reason
        super().__init__(f"package {package} could not be installed from the package index: {reason}")


class DatasetDamaged(CollectOpsError, Permanent):
    """A data file is not what this project was written against."""

    def __init__(self, *, path: Path, found: str, expected: str) -> None:
        self.path = path
        self.found = found
        self.expected = expected
        super().__init__(f"{path} holds {found}; expected {expected}; remove the file to have it made again")


class ToolMissing(CollectOpsError, Permanent):
    """An executable that the set-up provides is not there."""

    def __init__(self, *, tool: str, looked_in: Sequence[Path], remedy: str) -> None:
        self.tool = tool
        self.looked_in = tuple(looked_in)
        places = ", ".join(str(path) for path in looked_in)
        super().__init__(f"{tool} was not found (looked in {places}); {remedy}")


class ServerFailed(CollectOpsError, Transient):
    """The data server did not come up, or answers something else than it should."""

    def __init__(self, *, url: str, reason: str, log: Path) -> None:
        self.url = url
        self.reason = reason
        self.log = log
        super().__init__(f"data server {url}: {reason}; its log: {log}")


class SettingMissing(CollectOpsError, Permanent):
    """The environment lacks a setting of the running stack."""

    def __init__(self, *, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(
            f"environment lacks {', '.join(names)}; start the stack and take its settings: "
            'make up && eval "$(make -s env ALL=1)"'
        )


class AirflowRefused(CollectOpsError, Permanent):
    """Airflow's REST API answered with an error."""

    def __init__(self, *, request: str, status: int, answer: str) -> None:
        self.request = request
        self.status = status
        self.answer = answer
        super().__init__(f"Airflow answered {status} to {request}: {answer[:500]}")


class AirflowUnreachable(CollectOpsError, Transient):
    """Airflow's REST API does not answer."""

    def __init__(self, *, url: str, seconds: float, reason: str) -> None:
        self.url = url
        super().__init__(
            f"Airflow at {url} did not answer for {seconds:.0f} s ({reason}); look at: make status"
        )


class SubmissionFailed(CollectOpsError, Permanent):
    """The run that submits the task did not succeed, or told no task."""

    def __init__(self, *, run_url: str, state: str, reason: str) -> None:
        self.run_url = run_url
        self.state = state
        super().__init__(f"submission ended as {state}: {reason}; look at {run_url}")


class NotInTime(CollectOpsError, Transient):
    """Something expected did not happen before its deadline."""

    def __init__(self, *, what: str, seconds: float, last_seen: str) -> None:
        self.what = what
        self.seconds = seconds
        self.last_seen = last_seen
        super().__init__(f"{what} did not happen within {seconds:.0f} s; last seen: {last_seen}")
