"""What `python -m stack` can do, and its command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from stack import bring_up, environment, join, launch, privileges, report, settings
from stack.credentials import write_private
from stack.env_files import exports
from stack.faults import StackError
from stack.layout import Layout
from stack.paused import paused_dags
from stack.paused import sentences as paused_sentences
from stack.programs import BASE, named, programs


def say(line: str) -> None:
    """A line of progress, at once."""
    print(line, flush=True)


def names_of(text: str | None) -> list[str]:
    """Comma-separated service names."""
    return [name for name in (text or "").replace(" ", ",").split(",") if name]


def up(arguments: argparse.Namespace) -> int:
    """Start and wait until healthy."""
    # What is given on the command line is what the environment would say.
    given = {"NODES": arguments.nodes, "WORKER_SLOTS": arguments.slots, "NODE_LABELS": arguments.labels}
    given |= {"LISTEN": arguments.listen, "EXECUTOR": arguments.executor}
    environment_ = {**os.environ, **{key: value for key, value in given.items() if value is not None}}
    stack = bring_up.up(Layout.from_environment(), names_of(arguments.only), say, environment_)
    if not arguments.only:
        say(report.where_to_click(stack))
    return 0


def down(_: argparse.Namespace) -> int:
    """Stop everything."""
    bring_up.down(Layout.from_environment(), say)
    return 0


def restart(arguments: argparse.Namespace) -> int:
    """Restart services."""
    bring_up.restart(Layout.from_environment(), names_of(arguments.services), say)
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Print the table or JSON; 0 when healthy, 1 when not."""
    stack = settings.load(Layout.from_environment())
    lines = report.status(stack)
    paused = paused_dags(stack)
    as_json = arguments.json or os.environ.get("JSON") == "1"
    if as_json:
        print(report.as_json(lines, paused))
    else:
        print("\n".join([report.as_table(lines), *paused_sentences(paused)]))
    return 0 if report.all_healthy(lines) else 1


def logs(arguments: argparse.Namespace) -> int:
    """Print and follow logs."""
    layout = Layout.from_environment()
    chosen = names_of(arguments.services)
    stack = settings.load(layout)
    named(stack, chosen)
    files = [layout.logs / f"{name}.log" for name in chosen or (*programs(stack), "supervisord")]
    try:
        report.follow(files, lines=arguments.lines, keep_on=not arguments.no_follow)
    except KeyboardInterrupt:
        return 0
    return 0


def env(arguments: argparse.Namespace) -> int:
    """Print shell exports."""
    wanted = environment.everything if arguments.all else environment.person
    print(exports(wanted(settings.load(Layout.from_environment()))))
    return 0


def show_versions(arguments: argparse.Namespace) -> int:
    """Print the servers' versions; 1 when one is older than it shall be."""
    from stack import versions

    found = versions.running(settings.load(Layout.from_environment()))
    for name, version in found.items():
        print(f"{name:<9} {version}")
    if arguments.at_least:
        versions.demand(found, versions.parsed(arguments.at_least, found))
    return 0


def withdraw(arguments: argparse.Namespace) -> int:
    """End a node's sessions and take its credentials away."""
    privileges.withdraw(Layout.from_environment(), arguments.node, say)
    return 0


def join_file(arguments: argparse.Namespace) -> int:
    """Print or write what another machine needs."""
    stack = settings.load(Layout.from_environment())
    join.check(stack, arguments.address)
    text = join.text(privileges.admit(stack, arguments.node), arguments.node, arguments.address)
    if arguments.output is None:
        print(text, end="")
        return 0
    write_private(Path(arguments.output), text)
    say(
        f"wrote {arguments.output}: whoever has it is node {arguments.node}; take it to that machine as you would a key"
    )
    return 0


def connection(arguments: argparse.Namespace) -> int:
    """Print one of Airflow's connections as JSON, password and all, into a pipe: `source preview` asks for it."""
    if sys.stdout.isatty():
        print("error: prints secrets, so into a pipe only", file=sys.stderr)
        return 1
    from stack import airflow_connections

    found = airflow_connections.read(settings.load(Layout.from_environment()), arguments.name)
    print(json.dumps(found))
    return 0


def clean(arguments: argparse.Namespace) -> int:
    """Remove the data, after asking."""
    layout = Layout.from_environment()
    if not (arguments.yes or os.environ.get("YES") == "1"):
        size_mb = bring_up.size_bytes(layout) / 1e6
        print(
            f"This removes all data of the stack in {layout.home} ({size_mb:,.0f} MB), its secrets included."
        )
        answer = input("Go on? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 1
    bring_up.clean(layout, say)
    return 0


def become(arguments: argparse.Namespace) -> int:
    """Turn into a program; for supervisord only."""
    launch.become(settings.load(Layout.from_environment()), arguments.program)
    return 1


def parser() -> argparse.ArgumentParser:
    """The command line's shape."""
    root = argparse.ArgumentParser(prog="python -m stack", description="The native stack of collect-ops.")
    commands = root.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    services = f"comma-separated: {', '.join(BASE)}, worker-N, agent-N, …"
    up_command = command("up", up, "start and wait until healthy")
    up_command.add_argument("--only", metavar="SERVICES", help=services)
    up_command.add_argument("--nodes", metavar="N", help="worker hosts; 0 goes back to none (NODES)")
    up_command.add_argument("--slots", metavar="N", help="shard groups a node runs at once (WORKER_SLOTS)")
    up_command.add_argument(
        "--labels", help="labels of nodes, node-1:region=eu,disk=ssd;node-2:region=us (NODE_LABELS)"
    )
    up_command.add_argument(
        "--listen", metavar="ADDRESS", help="also listen there, for other machines (LISTEN)"
    )
    up_command.add_argument(
        "--executor", metavar="NAME", help="CeleryExecutor, or LocalExecutor for a small machine (EXECUTOR)"
    )
    command("down", down, "stop everything, leftovers of a crash included")
    command("restart", restart, "restart services").add_argument("services", nargs="?", help=services)
    status_command = command("status", status, "show every service; exit status 0 when healthy")
    status_command.add_argument("--json", action="store_true", help="for programs")
    log_command = command("logs", logs, "show and follow logs")
    log_command.add_argument("services", nargs="?", help=services)
    log_command.add_argument("--lines", type=int, default=40, help="old lines to show (40)")
    log_command.add_argument("--no-follow", action="store_true", help="end after the old lines")
    env_command = command("env", env, "print connection settings as shell exports")
    env_command.add_argument("--all", action="store_true", help="the owners' and the superuser's as well")
    versions_command = command("versions", show_versions, "print which releases of the servers run")
    versions_command.add_argument(
        "--at-least", metavar="NAME=VERSION,…", help="exit status 1 when one is older: postgres=17,redis=8"
    )
    withdraw_command = command("withdraw", withdraw, "end a node's sessions and take its credentials away")
    withdraw_command.add_argument("node", help="its id")
    join_command = command("join-file", join_file, "print what `collect-ops worker --join` needs elsewhere")
    join_command.add_argument("node", help="the id it shall have: its credentials are for that node alone")
    join_command.add_argument(
        "--address", help="of this machine, as the other one sees it; LISTEN's by default"
    )
    join_command.add_argument("--output", metavar="FILE", help="write it there, readable by you only")
    command("connection", connection, "used by collect-ops source preview").add_argument("name")
    command("clean", clean, "remove the data").add_argument("--yes", action="store_true", help="do not ask")
    command("become", become, "used by supervisord").add_argument("program")
    return root


def main() -> int:
    """Run a command; an expected error is one message on stderr and exit status 1."""
    arguments = parser().parse_args()
    try:
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
