"""The programs of the stack: what each executes, where, with which variables, and what it needs first."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

from stack import agent, airflow, environment, postgres, rabbitmq, redis
from stack.faults import UnknownService
from stack.settings import HOST, Stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One supervised program.

    Args:
        name: As people call it.
        command: What to execute.
        variables: What it gets beside the base environment.
        port: The port it listens on, if any.
        needs: Programs that must be healthy before it starts.
        stop_signal: What asks it to end in good order.
        stop_wait_s: Seconds after which it is killed.
        is_airflow: Whether it starts only when the databases are made.
        configure: Writes its configuration before a start.
        runs_as_postgres: Whether it gives up root for the postgres user.
    """

    name: str
    command: Callable[[Stack], list[str]]
    variables: Callable[[Stack], dict[str, str]] = lambda _: {}
    port: Callable[[Stack], int | None] = lambda _: None
    needs: tuple[str, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    stop_wait_s: int = 20
    is_airflow: bool = False
    configure: Callable[[Stack], object] | None = None
    runs_as_postgres: bool = False

    def address(self, stack: Stack) -> str:
        """Where it listens, or a dash."""
        port = self.port(stack)
        return "-" if port is None else f"{HOST}:{port}"


def _airflow(name: str, *arguments: str, port: Callable[[Stack], int | None] = lambda _: None) -> Program:
    return Program(
        name=name,
        command=lambda _: [str(airflow.executable()), *arguments],
        variables=environment.airflow,
        port=port,
        needs=("postgres",),
        is_airflow=True,
        configure=airflow.configure if name == "api-server" else None,
    )


PROGRAMS: dict[str, Program] = {
    program.name: program
    for program in (
        Program(
            name="postgres",
            command=postgres.command,
            port=lambda stack: stack.ports.postgres,
            # Fast shutdown: roll back what is open, write a checkpoint, end.
            stop_signal=signal.SIGINT,
            stop_wait_s=60,
            configure=postgres.initialise,
            runs_as_postgres=True,
        ),
        Program(
            name="redis",
            command=redis.command,
            port=lambda stack: stack.ports.redis,
            configure=redis.configure,
        ),
        Program(
            name="epmd",
            command=lambda _: rabbitmq.epmd_command(),
            variables=rabbitmq.epmd_environment,
            port=lambda stack: stack.ports.epmd,
            stop_wait_s=5,
        ),
        Program(
            name="rabbitmq",
            command=lambda _: rabbitmq.command(),
            variables=rabbitmq.environment,
            port=lambda stack: stack.ports.rabbitmq,
            needs=("epmd",),
            stop_wait_s=30,
            configure=rabbitmq.configure,
        ),
        _airflow("api-server", "api-server", port=lambda stack: stack.ports.api_server),
        # Logs are read from the shared folder; serving them would listen on every address of the machine.
        _airflow("scheduler", "scheduler", "--skip-serve-logs"),
        _airflow("dag-processor", "dag-processor"),
        _airflow("triggerer", "triggerer", "--skip-serve-logs"),
        Program(
            name="agent",
            command=lambda _: [
                sys.executable,
                "-m",
                "collect_ops.cli",
                "agent",
                "--slots",
                str(agent.slots()),
            ],
            variables=agent.environment,
            needs=("postgres", "redis", "rabbitmq"),
            stop_wait_s=10,
            is_airflow=True,
        ),
    )
}
NAMES = tuple(PROGRAMS)


def named(names: list[str]) -> list[Program]:
    """Programs by name with what they need, in starting order; all when none is named.

    Raises:
        UnknownService: a name is not one of the stack's.
    """
    for name in names:
        if name not in PROGRAMS:
            raise UnknownService(name, NAMES)
    wanted = set(names or NAMES)
    for name in names:
        wanted |= set(PROGRAMS[name].needs)
    return [program for program in PROGRAMS.values() if program.name in wanted]
