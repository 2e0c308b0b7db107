"""The programs of the stack: what each executes, where, with which variables, and what it needs first."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

from stack import agent, airflow, environment, postgres, rabbitmq, redis, relay, schedulers, workers
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
        node_id: The worker host that it runs on, if any.
        prepare: Called just before each start, by the process that becomes the program.
        listens: Its addresses; what changes them demands a new start.
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
    node_id: str | None = None
    prepare: Callable[[Stack], object] | None = None
    listens: Callable[[Stack], tuple[str, ...]] = lambda _: (HOST,)

    def address(self, stack: Stack) -> str:
        """Where it listens, or its node's address, or a dash."""
        port = self.port(stack)
        if port is None:
            return (stack.nodes.address(self.node_id) if self.node_id else None) or "-"
        return " ".join(f"{address}:{port}" for address in self.listens(stack))

    def shape(self, stack: Stack) -> object:
        """What a running process of it was started with: when it differs, it must be started anew."""
        return (self.command(stack), self.variables(stack), self.listens(stack))


def _airflow(name: str, *arguments: str, port: Callable[[Stack], int | None] = lambda _: None) -> Program:
    is_api_server = name == "api-server"
    return Program(
        name=name,
        command=lambda _: [str(airflow.executable()), *arguments],
        variables=environment.api_server if is_api_server else environment.airflow,
        port=port,
        needs=("postgres",),
        is_airflow=True,
        configure=airflow.configure if is_api_server else None,
        prepare=schedulers.forget_dead if name == "scheduler" else None,
    )


def _everywhere(stack: Stack) -> tuple[str, ...]:
    return stack.addresses


BASE: dict[str, Program] = {
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
            listens=_everywhere,
            runs_as_postgres=True,
        ),
        Program(
            name="redis",
            command=redis.command,
            port=lambda stack: stack.ports.redis,
            configure=redis.configure,
            listens=_everywhere,
        ),
        Program(
            name="epmd",
            command=rabbitmq.epmd_command,
            variables=rabbitmq.epmd_environment,
            port=lambda stack: stack.ports.epmd,
            stop_wait_s=5,
        ),
        Program(
            name="rabbitmq",
            command=rabbitmq.command,
            variables=rabbitmq.environment,
            port=lambda stack: stack.ports.rabbitmq,
            needs=("epmd",),
            stop_wait_s=30,
            configure=rabbitmq.configure,
            listens=_everywhere,
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
                str(workers.lane_slots()),
            ],
            variables=agent.environment,
            needs=("postgres", "redis", "rabbitmq"),
            stop_wait_s=10,
            is_airflow=True,
        ),
        Program(
            name="watchdog",
            command=lambda _: [sys.executable, "-m", "stack.watchdog"],
            variables=environment.watchdog,
            needs=("postgres",),
            stop_wait_s=10,
            is_airflow=True,
        ),
    )
}
# Without worker hosts the scheduler's machine is the only node.
WITHOUT_NODES = ("agent",)


def _relay(service: str, number: int) -> Program:
    return Program(
        name=relay.name_of(service, number),
        command=lambda stack: relay.command(stack, service, number),
        port=lambda stack: relay.port(stack, service),
        listens=lambda stack: (stack.nodes.addresses[number],),
        stop_wait_s=5,
    )


def _worker(node_id: str) -> Program:
    return Program(
        name=f"worker-{node_id.removeprefix('node-')}",
        command=lambda stack: workers.worker_command(stack, node_id),
        variables=lambda stack: workers.worker_environment(stack, node_id),
        needs=("postgres", "rabbitmq"),
        # SIGTERM lets what runs end; what takes longer is killed, and resumed elsewhere from its last page. An idle
        # worker takes seconds to take its interpreter down, 20 on a busy machine.
        stop_wait_s=40,
        is_airflow=True,
        node_id=node_id,
        prepare=lambda stack: workers.make_folders(stack, node_id),
    )


def _agent(node_id: str) -> Program:
    return Program(
        name=f"agent-{node_id.removeprefix('node-')}",
        command=lambda stack: workers.agent_command(stack, node_id),
        variables=lambda stack: workers.worker_environment(stack, node_id),
        needs=("postgres", "redis", "rabbitmq"),
        stop_wait_s=10,
        is_airflow=True,
        node_id=node_id,
        prepare=lambda stack: workers.make_folders(stack, node_id),
    )


LOCAL_WORKER = Program(
    name="worker",
    command=workers.local_command,
    variables=workers.local_environment,
    needs=("postgres", "rabbitmq"),
    # Longer than what the pools give their tasks (collect_ops/nodes/forked_pools.py).
    stop_wait_s=40,
    is_airflow=True,
)
CONTROL = Program(
    name="worker-control",
    command=workers.control_command,
    variables=workers.control_environment,
    needs=("postgres", "rabbitmq"),
    stop_wait_s=40,
    is_airflow=True,
)


def programs(stack: Stack) -> dict[str, Program]:
    """The programs of a stack by name, in starting order."""
    relays = [
        _relay(service, number) for number in range(len(stack.nodes.addresses)) for service in relay.SERVICES
    ]
    hosts = [make(node_id) for node_id in stack.nodes.ids for make in (_worker, _agent)]
    base = [program for program in BASE.values() if not (hosts and program.name in WITHOUT_NODES)]
    worker = [CONTROL] if hosts else [LOCAL_WORKER] if stack.nodes.celery else []
    listed = [*base, *relays, *worker, *hosts]
    return {program.name: program for program in listed}


def named(stack: Stack, names: list[str]) -> list[Program]:
    """Programs by name with what they need, and what that needs, in starting order; all when none is named.

    Raises:
        UnknownService: a name is not one of the stack's.
    """
    known = programs(stack)
    for name in names:
        if name not in known:
            raise UnknownService(name, tuple(known))
    wanted = set(names or known)
    waiting = list(names)
    while waiting:
        needed = set(known[waiting.pop()].needs) - wanted
        wanted |= needed
        waiting += needed
    return [program for program in known.values() if program.name in wanted]
