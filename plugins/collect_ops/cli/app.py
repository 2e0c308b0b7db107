"""The command's groups, and how its failures end."""

from __future__ import annotations

import sys

import typer

from collect_ops.cli import (
    backlog,
    bad_rows,
    connection,
    dead,
    nodes,
    operations,
    retention,
    schemas,
    source,
    task,
    tasks,
    topology,
    why,
    worker,
)

app = typer.Typer(
    name="collect-ops",
    help="Collect data at scale under Apache Airflow: declare sources, submit tasks, follow them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(source.app, name="source")
app.add_typer(dead.app, name="dead")
app.add_typer(connection.app, name="connection")
app.command("submit")(task.submit)
app.command("tasks")(tasks.tasks)
app.command("status")(task.status)
app.command("watch")(task.watch)
app.command("trace")(task.trace)
app.command("bad-rows")(bad_rows.bad_rows)
app.command("why")(why.why)
app.command("backlog")(backlog.backlog)
app.command("cancel")(operations.cancel)
app.command("priority")(operations.priority)
app.command("promote")(operations.promote)
app.command("priority-rules")(operations.priority_rules)
app.command("topology")(topology.topology)
app.command("sweep")(operations.sweep)
app.command("retention")(retention.retention)
app.command("agent")(nodes.agent)
app.add_typer(nodes.app, name="nodes")
app.command("worker")(worker.worker)
app.command("schemas")(schemas.schemas)


def main() -> None:
    """Run the command of `sys.argv`; exits the process."""
    from collect_ops.kernel.errors import CollectOpsError

    try:
        app()
    except CollectOpsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_exit_code(error))


def _exit_code(error: Exception) -> int:
    from collect_ops.cli.output import BAD_INPUT, FAILED
    from collect_ops.delivery.dead_model import NoSuchLetter, NoSuchRedrive
    from collect_ops.kernel.backends import SettingMissing
    from collect_ops.kernel.errors import ValidationFailed
    from collect_ops.nodes.draining import UnknownNode
    from collect_ops.sources.load import UnknownSource

    bad_input = ValidationFailed | UnknownSource | SettingMissing | NoSuchLetter | NoSuchRedrive | UnknownNode
    return BAD_INPUT if isinstance(error, bad_input) else FAILED
