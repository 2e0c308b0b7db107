"""What the demonstration shows: progress while it runs, the summary at its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from demo.progress import Progress
from demo.run import Summary


@dataclass(slots=True)
class ProgressView:
    """A task's progress, drawn."""

    began: float = field(default_factory=time.monotonic)
    first_row_at: float | None = None
    progress: Progress | None = None

    def see(self, progress: Progress) -> None:
        """Take in a look at the task."""
        self.progress = progress
        if progress.status == "RUNNING" and self.first_row_at is None:
            self.first_row_at = time.monotonic()

    def render(self) -> RenderableType:
        """The present state: a bar and a line of figures."""
        if self.progress is None:
            return Text("waiting for the task …")
        progress = self.progress
        bar = ProgressBar(total=progress.total_rows or 1, completed=progress.rows, width=60)
        return Group(bar, Text(self.sentence()))

    def sentence(self) -> str:
        """The figures in a line."""
        progress = self.progress
        if progress is None:
            return "waiting for the task"
        now = time.monotonic()
        elapsed = now - self.began
        # The rate is that of collecting: the wait for a start would make the remaining time look longer.
        collecting = now - self.first_row_at if self.first_row_at is not None else 0.0
        rate = progress.rows / collecting if collecting > 0 else 0.0
        remaining = "-"
        if progress.total_rows and rate:
            remaining = f"{max(progress.total_rows - progress.rows, 0) / rate:.0f} s"
        total = f"{progress.total_rows:,}" if progress.total_rows else "?"
        return (
            f"{progress.status:<10} {progress.rows:>9,} of {total} rows   "
            f"shards {progress.shards_done}/{progress.shards_total}   "
            f"{rate:>8,.0f} rows/s   {elapsed:5.1f} s   remaining {remaining}"
        )

    def print_changes(self, console: Console) -> Callable[[Progress], None]:
        """For output that is not a terminal: a line whenever status or finished shards change."""
        last: tuple[str, int] | None = None

        def on_progress(progress: Progress) -> None:
            nonlocal last
            self.see(progress)
            if (progress.status, progress.shards_done) != last:
                last = (progress.status, progress.shards_done)
                console.print(self.sentence(), highlight=False)

        return on_progress


def print_summary(console: Console, summary: Summary, written_to: Path) -> None:
    """The summary with where to look, and what is off, if anything."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    secret = f"AIRFLOW_ADMIN_PASSWORD in {summary.password_file}"
    verdict = "equal to the server's" if summary.checksum_ok else "[bold red]NOT the server's[/]"
    lines = {
        "task": f"{summary.task_id}, {summary.status}",
        "rows": f"{summary.rows:,} of {summary.expected_rows:,}, checksum {verdict}",
        "time": f"{summary.seconds:.1f} s, {summary.rows_per_second:,.0f} rows/s (submit to {summary.status})",
        "shards": f"{summary.shards_done} of {summary.shards}, attempts {summary.attempts}",
        "retries": f"{summary.retries} of the task, {summary.http_retries} of single requests",
        "bad rows": f"{summary.bad_rows:,}",
        "the run": summary.run_url,
        "Airflow": f"{summary.airflow_url}  user {summary.airflow_user}, password: {secret}",
        "the table": f"{summary.table}   (psql: eval \"$(make -s env)\" && psql -c 'table {summary.table} limit 5')",
        "summary": str(written_to),
    }
    if summary.duplicate_of is not None:
        lines["duplicate"] = (
            f"the same submission was refused as a duplicate of task {summary.duplicate_of} first"
        )
    for name, value in lines.items():
        table.add_row(name, value)
    colour = "red" if summary.faults else "green"
    title = "Something is off" if summary.faults else "Collected, exactly"
    console.print(Panel(table, title=title, border_style=colour, expand=False), highlight=False)
    for fault in summary.faults:
        console.print(f"[bold red]off:[/] {fault}", highlight=False)
