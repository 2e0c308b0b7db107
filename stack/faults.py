"""What can go wrong with the stack, each with what to do about it."""

from __future__ import annotations


class StackError(Exception):
    """Base of every error the stack raises on purpose; its message is shown without a traceback."""


class MissingProgram(StackError):
    """A server that the stack starts is not installed."""

    def __init__(self, program: str, package: str) -> None:
        super().__init__(
            f"{program} is not installed; `make bootstrap` installs it (Debian package {package})"
        )


class UnknownService(StackError):
    """A service was named that the stack does not have."""

    def __init__(self, name: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"service: {name!r} is unknown; allowed: {', '.join(allowed)}")


class BadSetting(StackError):
    """A setting given by environment or file cannot be used."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field}: {value!r} cannot be used; allowed: {allowed}")


class PortTaken(StackError):
    """Somebody else listens on a port of this stack."""

    def __init__(self, field: str, port: int, address: str = "127.0.0.1") -> None:
        super().__init__(
            f"{field}: port {port} on {address} is taken by another program; "
            f"stop that, or choose another with {field}=PORT"
        )


class ForeignFolder(StackError):
    """A folder that the stack wants to use belongs to somebody else."""

    def __init__(self, path: object, owner: str) -> None:
        super().__init__(
            f"{path} exists and belongs to {owner}, not to this stack; remove it or set STACK_HOME"
        )


class NotHealthy(StackError):
    """A service did not become healthy in time.

    Args:
        service: Which.
        seconds: How long it was waited for.
        reason: What is wrong with it.
        log_tail: The end of its log.
    """

    def __init__(self, service: str, seconds: float, reason: str, log_tail: str) -> None:
        self.service, self.seconds, self.reason, self.log_tail = service, seconds, reason, log_tail
        super().__init__(f"{service} is not healthy after {seconds:.0f} s: {reason}\n{log_tail}".rstrip())


class CommandFailed(StackError):
    """A set-up command ended with an error."""

    def __init__(self, what: str, exit_code: int, output: str) -> None:
        super().__init__(f"{what} failed with exit code {exit_code}:\n{output[-4000:]}".rstrip())
