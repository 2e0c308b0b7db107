"""`python -m demo`: collect the flights through the running stack, and show that they are exact.

Exit status: 0 when everything is as it should be, 1 when something is off, 2 when it could not be run.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from rich.console import Console
from rich.live import Live

from collect_ops.kernel.errors import CollectOpsError
from demo.progress import Progress, wait_until_settled
from demo.run import (
    SOURCE,
    TASK_TIMEOUT_S,
    Submission,
    Summary,
    prepare_connections,
    submit,
    summarise,
    unpause_needed,
)
from demo.server import ensure_running
from demo.settings import DemoSettings
from demo.show import ProgressView, print_summary
from demo.verify import verify

#: Of output that goes to a file or a pipe: nothing that a program may look for is broken into lines.
LOG_WIDTH = 160


def main() -> int:
    """Run the demonstration; returns the exit status."""
    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    try:
        summary = demonstrate(console, DemoSettings.load())
    except CollectOpsError as error:
        console.print(f"[bold red]The demo could not be run.[/] {error}", highlight=False)
        return 2
    return 1 if summary.faults else 0


def demonstrate(console: Console, settings: DemoSettings) -> Summary:
    """All steps, in order; returns what came of them."""
    airflow = settings.airflow()
    server = ensure_running(settings.home, settings.serve_address)
    console.print(
        f"[bold]Data server[/] {server.base_url}  {server.dataset.rows:,} flights, real ones, of 2013"
    )
    prepare_connections(airflow, server)
    unpause_needed(airflow)
    began = time.monotonic()
    submission = submit(airflow, force=False)
    refused_as = submission.duplicate_of
    if refused_as is not None:
        console.print(
            f"[yellow]Refused:[/] duplicate of task {refused_as}, now {submission.status}. Submitting again with force."
        )
        began = time.monotonic()
        submission = submit(airflow, force=True)
    console.print(f"[bold]Submitted[/] source {SOURCE}: task {submission.task_id}")
    progress = follow(console, settings, submission)
    seconds = time.monotonic() - began
    console.print("Comparing the landed rows with the server's …")
    verification = verify(settings.postgres_dsn, server)
    answered = replace(submission, duplicate_of=refused_as)
    summary = summarise(settings, server, answered, progress, verification, seconds)
    print_summary(console, summary, summary.write(settings.home))
    return summary


def follow(console: Console, settings: DemoSettings, submission: Submission) -> Progress:
    """Show the task's progress until it has ended."""
    view = ProgressView()
    if not console.is_terminal:
        return wait_until_settled(
            settings.postgres_dsn, submission.task_id, TASK_TIMEOUT_S, on_progress=view.print_changes(console)
        )
    with Live(view.render(), console=console, refresh_per_second=8) as live:

        def update(progress: Progress) -> None:
            view.see(progress)
            live.update(view.render())

        return wait_until_settled(
            settings.postgres_dsn, submission.task_id, TASK_TIMEOUT_S, on_progress=update
        )


if __name__ == "__main__":
    sys.exit(main())
