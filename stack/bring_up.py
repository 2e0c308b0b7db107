"""Up, down, restart, clean."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from stack import (
    airflow,
    code,
    draining,
    health,
    network,
    postgres,
    privileges,
    processes,
    progress,
    rabbitmq,
    redis,
    supervisor,
    watchdog,
)  # fmt: skip
from stack.faults import NotHealthy, PortTaken, StackError
from stack.layout import Layout
from stack.node_settings import check_listen
from stack.ports import is_free, variable_of
from stack.programs import Program, named, programs
from stack.progress import Deadline
from stack.settings import Stack, load, load_or_create, read_settings, remember

Say = Callable[[str], None]
# An Airflow process imports for 10 to 20 s on a slow core, and five of them do so at once. A slower machine gets more
# time for as long as a service gets on with it, up to so many times this.
HEALTHY_WITHIN_S, HEALTHY_WITHIN_S_A_NODE, MOST_EXTENSIONS = 240.0, 40.0, 5


@contextlib.contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """Only one up, down or restart at a time; a second waits for the first."""
    layout.create()
    with (layout.run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up(layout: Layout, only: list[str], say: Say, environment: Mapping[str, str] = os.environ) -> Stack:
    """Start what does not run yet, restart what runs other code or settings, and wait until all is healthy. Repeatable.

    Migrations come in pairs: those before are safe beside processes of the last release, and are applied while these
    run; those after need that no process of it is left. What runs tasks is drained before it is stopped.

    Args:
        layout: Where the stack lives.
        only: Services to start, with what they need; all when empty.
        say: Called with each line of progress.
        environment: Ports and nodes that it names are taken, and remembered.

    Returns:
        The running stack.

    Raises:
        StackError: something did not start; its message says what and shows the log.
    """
    with alone(layout):
        before = load(layout) if supervisor.is_up(layout) else None
        stack = load_or_create(layout, environment)
        if before is not None and before.ports != stack.ports:
            remember(layout, ports=before.ports.as_dict(), nodes=before.nodes.as_dict())
            raise StackError("the ports of a running stack cannot be changed: `make down` first")
        stale: list[str] = []
        if before is None:
            _clear(stack, say)
            stack = _with_network(stack, say)
            supervisor.start(stack)
        else:
            if (before.nodes, before.examples) != (stack.nodes, stack.examples):
                stack = _change(before, stack, say)
            stale = _outdated(stack, only)
        names = {program.name for program in named(stack, only)} | set(stale)
        wanted = [program for program in programs(stack).values() if program.name in names]
        _remember_wanted(stack, wanted)
        _stop_stale_servers(stack, stale, say)
        _start(stack, [program for program in wanted if not program.is_airflow], say)
        _prepare_services(stack, wanted, say)
        _stop_stale(stack, stale, say)
        _prepare_airflow(stack, wanted, say)
        for wave in airflow_waves(wanted):
            _start(stack, wave, say)
        _finish(stack, wanted, say)
    return stack


def _remember_wanted(stack: Stack, wanted: list[Program]) -> None:
    """Note what was asked for, beside what runs: before it starts, so that a restart knows it when a start fails."""
    chosen = {*read_settings(stack.layout).get("wanted", []), *(program.name for program in wanted)}
    remember(stack.layout, wanted=[name for name in programs(stack) if name in chosen])


def _clear(stack: Stack, say: Say) -> None:
    """Make room after a crash of supervisord: end what it left, and forget its pauses."""
    ended = processes.end_everything(stack.layout)
    if ended:
        say(f"ended {ended} processes of a stack whose supervisor had died")
    network.remove(stack.layout)
    for note in stack.layout.run.glob("*.starts"):
        note.unlink()
    watchdog.well_file(stack.layout).unlink(missing_ok=True)
    remember(stack.layout, wanted=[])
    listen = stack.nodes.listen
    if listen is not None:
        check_listen(listen)
    for address in filter(None, ("127.0.0.1", listen)):
        for name, port in stack.ports.as_dict().items():
            if not is_free(port, address):
                raise PortTaken(variable_of(name), port, address)


def _with_network(stack: Stack, say: Say) -> Stack:
    """The stack with its nodes' network made: namespaces where the machine allows it, else none."""
    layout, nodes = stack.layout, stack.nodes
    try:
        if nodes.count and nodes.network:
            nodes = replace(nodes, subnet=network.choose_subnet(layout, nodes.subnet))
            network.create(layout, nodes)
        else:
            network.remove(layout)
            nodes = replace(nodes, subnet=None)
    except network.NoNamespaces as error:
        say(f"the nodes share this machine's network and its addresses: {error}")
        nodes = replace(nodes, subnet=None)
    remember(layout, nodes=nodes.as_dict())
    return replace(stack, nodes=nodes)


def _change(before: Stack, stack: Stack, say: Say) -> Stack:
    """Other nodes, address or examples under a running stack: stop what must be started with them anew."""
    network_goes = bool(before.nodes.subnet) and not (stack.nodes.count and stack.nodes.network)
    if network_goes:
        # What listens on the bridge, and who is in a namespace, goes first.
        supervisor.stop_programs(stack.layout, [p.name for p in programs(before).values() if p.node_id])
    after = _with_network(stack, say)
    old, new = programs(before), programs(after)
    stale = [name for name in old if name not in new or old[name].shape(before) != new[name].shape(after)]
    if stale:
        say(f"stopping what changes: {', '.join(stale)}")
        draining.drain(before, stale, say)
        stop_in_order(stack.layout, stale)
    supervisor.take_programs(after)
    return after


def _outdated(stack: Stack, only: list[str]) -> list[str]:
    """What runs and has to be restarted.

    It has started with other code or settings, is started in another way now, or uses a server that is restarted.
    """
    changed = supervisor.add_programs(stack)
    states = supervisor.states(stack.layout)
    known = programs(stack)
    chosen = {program.name for program in named(stack, only)}
    running = [program for program in known.values() if states[program.name].pid]
    stale = {*code.outdated(stack, states), *changed} & chosen
    if any(not program.is_airflow and program.name in stale for program in running):
        # Airflow's processes would meet a server that goes away; what they run is drained instead.
        stale |= {program.name for program in running if program.is_airflow}
    for program in running:
        if stale.intersection(program.needs) and not program.is_airflow:
            stale.add(program.name)
    return [program.name for program in running if program.name in stale]


def _stop_stale_servers(stack: Stack, stale: list[str], say: Say) -> None:
    """Stop servers that have to be restarted, after all that uses them; what stands still is started in today's way."""
    if any(not programs(stack)[name].is_airflow for name in stale):
        say(f"started with other code or settings, drained and restarted: {', '.join(stale)}")
        draining.drain(stack, stale, say)
        stop_in_order(stack.layout, stale)
    supervisor.take_programs(stack)


def _stop_stale(stack: Stack, stale: list[str], say: Say) -> None:
    """Stop what is stale and still runs; then supervisord takes on how programs are started now."""
    states = supervisor.states(stack.layout)
    known = programs(stack)
    left = [name for name in stale if states[name].pid and known[name].is_airflow]
    if left:
        say(f"started with other code or settings, drained and restarted: {', '.join(left)}")
        draining.drain(stack, left, say)
        stop_in_order(stack.layout, left)
    if supervisor.is_up(stack.layout):
        supervisor.take_programs(stack)


def airflow_waves(wanted: list[Program]) -> tuple[list[Program], list[Program]]:
    """Airflow's servers, and then the Celery workers and their agents.

    Each imports for 10 s of a core; all at once, none is there for minutes.
    """
    airflow_programs = [program for program in wanted if program.is_airflow]
    hosts = [program for program in airflow_programs if program.name.startswith(("worker-", "agent-"))]
    return [program for program in airflow_programs if program not in hosts], hosts


def _start(stack: Stack, programs: list[Program], say: Say) -> None:
    """Start programs side by side and wait for each in turn."""
    states = supervisor.states(stack.layout)
    began = time.monotonic()
    for program in programs:
        if states[program.name].pid:
            continue
        if program.configure is not None:
            program.configure(stack)
        supervisor.start_program(stack.layout, program.name)
    for program in programs:
        seconds = wait(stack, program, say, began)
        known = "runs already" if states[program.name].pid else f"healthy after {seconds:.1f} s"
        say(f"{program.name:<14} {known}  {program.address(stack) if program.port(stack) else ''}".rstrip())


def wait(stack: Stack, program: Program, say: Say, began: float) -> float:
    """Wait until a started service is healthy, saying every ten seconds what is missing.

    Returns:
        Seconds since `began`.

    Raises:
        NotHealthy: it took longer than `HEALTHY_WITHIN_S`, and `HEALTHY_WITHIN_S_A_NODE` for each worker host, and made
            no progress any more, or has taken `MOST_EXTENSIONS` times that.
    """
    said = time.monotonic()
    patience_s = HEALTHY_WITHIN_S + HEALTHY_WITHIN_S_A_NODE * stack.nodes.count
    deadline = Deadline(said, patience_s, MOST_EXTENSIONS * patience_s)
    while True:
        state = supervisor.states(stack.layout)[program.name]
        complaint = health.illness(stack, program, state)
        if complaint is None:
            return time.monotonic() - began
        deadline.note(progress.cpu_s(state.pid), time.monotonic())
        if deadline.is_over(time.monotonic()):
            log = stack.layout.logs / f"{program.name}.log"
            log_tail = health.tail(log.read_text(errors="replace"))
            raise NotHealthy(program.name, time.monotonic() - deadline.began, complaint, log_tail)
        if time.monotonic() - said > 10:
            said = time.monotonic()
            say(f"{program.name:<14} waiting: {complaint}")
        time.sleep(0.2)


def _prepare_services(stack: Stack, wanted: list[Program], say: Say) -> None:
    """Databases, users, our schema and queues, once what holds them runs; processes of the last release may go on."""
    names = {program.name for program in wanted}
    if "redis" in names:
        redis.set_users(stack)
    if "rabbitmq" in names:
        rabbitmq.set_users(stack)
        airflow.declare_topology(stack)
    if "postgres" not in names:
        return
    postgres.create_databases(stack)
    privileges.make_roles(stack)
    airflow.migrate_collect_ops(stack, say)
    privileges.grant(stack)
    privileges.make_nodes(stack)


def _prepare_airflow(stack: Stack, wanted: list[Program], say: Say) -> None:
    """Airflow's schema and pools; another version of it meets no processes of the last."""
    if any(program.is_airflow for program in wanted):
        airflow.prepare(stack, say)
        privileges.grant_results(stack)


def _finish(stack: Stack, wanted: list[Program], say: Say) -> None:
    """The migrations that need that no process of the last release is left, once none is."""
    if not any(program.name == "postgres" for program in wanted):
        return
    stale = code.outdated(stack, supervisor.states(stack.layout))
    if any(programs(stack)[name].is_airflow for name in stale):
        say(f"the migrations after an upgrade wait: {', '.join(stale)} still run other code (`make up`)")
        return
    airflow.finish_collect_ops(stack, say)


def down(layout: Layout, say: Say) -> None:
    """Stop everything, leftovers of a crash included. Repeatable.

    Raises:
        StackError: a process could not be ended.
    """
    if not layout.run.is_dir():
        network.remove(layout)
        say("nothing runs")
        return
    with alone(layout):
        if supervisor.is_up(layout):
            stop_in_order(layout, list(supervisor.states(layout)))
            supervisor.shut_down(layout)
        ended = processes.end_everything(layout)
        if ended:
            say(f"ended {ended} processes that were left over")
        left = processes.leftovers(layout)
        if left:
            raise StackError(f"could not end: {', '.join(str(process.pid) for process in left)}")
        network.remove(layout)
        network.unmount_all(layout)
        layout.supervisor_socket.unlink(missing_ok=True)
        if layout.settings_file.exists():
            remember(layout, wanted=[])
        say("everything is stopped")


def stop_in_order(layout: Layout, names: list[str]) -> None:
    """Stop programs: first who starts and runs tasks, while these can still report; last what all of them use."""

    def wave(name: str) -> int:
        if name in ("scheduler", "worker") or name.startswith("worker-"):
            return 0
        return {"epmd": 3}.get(name, 2) if name in processes.SERVERS or name.startswith("relay-") else 1

    for number in range(4):
        supervisor.stop_programs(layout, [name for name in names if wave(name) == number])


def restart(layout: Layout, names: list[str], say: Say) -> None:
    """Restart services, and wait until they are healthy.

    Args:
        layout: Where the stack lives.
        names: Services; every one that runs when empty.
        say: Called with each line of progress.

    Raises:
        UnknownService: a name is not a service.
        StackError: the stack does not run, or a service does not come back.
    """
    stack = load(layout)
    named(stack, names)
    if not supervisor.is_up(layout):
        raise StackError("nothing runs; `make up` starts it")
    chosen = names or read_settings(layout).get("wanted", [])
    if not chosen:
        raise StackError("no service was asked for yet; `make up` starts them")
    with alone(layout):
        order = [program for name, program in programs(stack).items() if name in chosen]
        draining.drain(stack, [program.name for program in order], say)
        for program in reversed(order):
            supervisor.stop_programs(layout, [program.name])
        _start(stack, [program for program in order if not program.is_airflow], say)
        for wave in airflow_waves(order):
            _start(stack, wave, say)


def clean(layout: Layout, say: Say) -> None:
    """Stop everything and remove the stack's data, secrets included; environments and other stacks stay."""
    down(layout, say)
    for path in (
        layout.data,
        layout.airflow_home,
        layout.etc,
        layout.logs,
        layout.work,
        layout.run,
        layout.nodes,
        layout.outside,
    ):
        if path.exists():
            shutil.rmtree(path)
    for file in (layout.settings_file, layout.secrets_file, layout.home / "summary.json"):
        file.unlink(missing_ok=True)
    say(f"removed the data below {layout.home}")


def size_bytes(layout: Layout) -> int:
    """How much the stack's data takes on disk."""
    roots = (layout.data, layout.airflow_home, layout.logs, layout.outside)
    return sum(
        file.lstat().st_size for root in roots if root.exists() for file in root.rglob("*") if file.is_file()
    )
