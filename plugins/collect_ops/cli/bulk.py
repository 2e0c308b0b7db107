"""`collect-ops submit SOURCE --params-file FILE`: many tasks from a file of params."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Self

if TYPE_CHECKING:
    from collections import Counter

    from collect_ops.admission.bulk import BadLine, BulkProgress, Checked, Job
    from collect_ops.admission.model import Admission, Preview
    from collect_ops.admission.service import AdmissionService

#: Seconds between two lines of progress where no bar can be drawn.
_PAUSE_S = 5.0
STDIN = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a file is submitted.

    Args:
        path: The file; `-` is stdin.
        errors: Where bad lines are told of; None: beside the file.
        answers: Where each line's answer goes, if anywhere.
        skip_bad: Admit the good lines though others are bad.
        dry_run: Only say what would be done.
        patience_s: How long services may be away.
        as_json: JSON on stdout.
    """

    path: str
    errors: Path | None
    answers: Path | None
    skip_bad: bool
    dry_run: bool
    patience_s: float
    as_json: bool

    @property
    def errors_path(self) -> Path:
        """Where bad lines are told of."""
        if self.errors is not None:
            return self.errors
        return Path("stdin.errors.ndjson" if self.path == STDIN else f"{self.path}.errors.ndjson")


def job_of(common: Mapping[str, Any], path: str, format_: str | None, name: str | None) -> Job:
    """What is submitted with each line.

    Args:
        common: The fields that all lines have in common.
        path: The file; its name says what it is.
        format_: Unless the caller does.
        name: Told apart by it, the same file is submitted once more.

    Raises:
        ValidationFailed: No format, or none that is known.
    """
    from collect_ops.admission.bulk import Job
    from collect_ops.admission.params_file import Format, format_of
    from collect_ops.kernel.errors import Fault, ValidationFailed

    tabs = path.lower().endswith(".tsv")
    if format_ is None:
        return Job(**common, format=format_of(path), tabs=tabs, name=name)
    known = tuple(Format)
    if format_ not in known:
        fault = Fault(field="--format", value=format_, problem="is no format", allowed=known)
        raise ValidationFailed("command line", [fault])
    return Job(**common, format=Format(format_), tabs=tabs, name=name)


def submit_file(service: AdmissionService, job: Job, options: Options) -> None:
    """Submit a file and print what became of it.

    Raises:
        CollectOpsError: Nothing, or not all of it, was admitted; its text is for people.
    """
    from collect_ops.admission.bulk import BulkAdmission, BulkRefused
    from collect_ops.cli.output import print_error

    with ExitStack() as stack:
        file = stack.enter_context(_opened(options.path))
        _refuse_same_file(file, options)
        bad = stack.enter_context(_NdjsonFile(options.errors_path))
        answers = stack.enter_context(_NdjsonFile(options.answers)) if options.answers else None
        if answers is not None:
            answers.open()
        progress = stack.enter_context(_progress(quiet=options.as_json))
        bulk = BulkAdmission(
            service,
            tell=progress,
            on_bad=lambda line: bad.write(_bad_as_json(line)),
            on_answer=None if answers is None else answers.write_answer,
            patience_s=options.patience_s,
        )
        run = bulk.preview if options.dry_run else bulk.submit
        try:
            with service:
                checked, counts = run(file, job, skip_bad=options.skip_bad)
        except BulkRefused as refused:
            print_error(f"bad lines: {options.errors_path}")
            if options.as_json:
                _report_json(options, refused.checked, None)
            raise
    if options.as_json:
        _report_json(options, checked, counts)
    else:
        _report(options, checked, counts)


def _report(options: Options, checked: Checked, counts: Counter[str]) -> None:
    import typer

    from collect_ops.cli.output import print_error

    would = "would be " if options.dry_run else ""
    total = checked.lines - checked.bad
    parts = [f"{counts[name]:,} {name}" for name in ("admitted", "merged") if counts[name]]
    if counts["duplicate"]:
        changed = counts["declaration_changed"]
        of_them = f", {changed:,} of tasks with an earlier declaration" if changed else ""
        parts.append(f"{counts['duplicate']:,} duplicates (--force collects again{of_them})")
    if counts["known"]:
        parts.append(f"{counts['known']:,} known from before")
    typer.echo(f"{total:,} lines: {would}{', '.join(parts) or 'nothing to do'}")
    if checked.bad:
        print_error(f"{checked.bad:,} bad lines skipped: {options.errors_path}")
    if total and counts["known"] == total:
        print_error("this file has been submitted before; --again submits it once more")


def _report_json(options: Options, checked: Checked, counts: Counter[str] | None) -> None:
    from collect_ops.cli.output import print_json

    names = ("admitted", "merged", "duplicate", "declaration_changed", "known")
    print_json(
        {
            "file": options.path,
            "dry_run": options.dry_run,
            "lines": checked.lines,
            "bad": checked.bad,
            "errors_file": str(options.errors_path) if checked.bad else None,
            **{name: 0 if counts is None else counts[name] for name in names},
        }
    )


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """The file; stdin, which cannot be read twice, from a copy of it."""
    from collect_ops.kernel.errors import Fault, ValidationFailed

    with ExitStack() as stack:
        try:
            file: Any = sys.stdin.buffer if path == STDIN else stack.enter_context(Path(path).open("rb"))
        except OSError as error:
            fault = Fault(field="--params-file", value=path, problem=f"cannot be read: {error.strerror}")
            raise ValidationFailed("command line", [fault]) from error
        if path != STDIN and file.seekable():
            yield file
            return
        copy = stack.enter_context(tempfile.TemporaryFile())
        shutil.copyfileobj(file, copy)
        copy.flush()
        yield copy


def _refuse_same_file(file: BinaryIO, options: Options) -> None:
    """What is read must not be written over."""
    from collect_ops.kernel.errors import Fault, ValidationFailed

    faults = [
        Fault(field=name, value=str(path), problem="is the file that is read")
        for name, path in (("--errors", options.errors_path), ("--answers", options.answers))
        if path is not None and path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
    ]
    if faults:
        raise ValidationFailed("command line", faults)


def _bad_as_json(line: BadLine) -> dict[str, Any]:
    from dataclasses import asdict

    return {"line": line.line, "faults": [asdict(fault) for fault in line.faults], "raw": line.raw}


class _NdjsonFile:
    """A file of a JSON object a line, made with the first of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write_answer(self, number: int, answer: Admission | Preview) -> None:
        self.write({"line": number, **answer.model_dump(mode="json")})

    def open(self) -> IO[bytes]:
        """Make the file; it is there already after the first time.

        Raises:
            ValidationFailed: It cannot be written.
        """
        from collect_ops.kernel.errors import Fault, ValidationFailed

        if self._file is None:
            try:
                self._file = self._path.open("wb")
            except OSError as error:
                fault = Fault(
                    field="file", value=str(self._path), problem=f"cannot be written: {error.strerror}"
                )
                raise ValidationFailed("command line", [fault]) from error
        return self._file

    def write(self, value: dict[str, Any]) -> None:
        import json

        # As people read it; half a character, which a command line may hold, as an escape.
        line = json.dumps(value, ensure_ascii=False, default=str)
        self.open().write(line.encode("utf-8", "backslashreplace") + b"\n")


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Any]:
    """Shows progress on stderr: a bar on a screen, else a line now and then."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _Bar() as bar:
            yield bar
    else:
        yield _Lines()


class _Bar:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description:<6}"),
            BarColumn(),
            TextColumn("{task.fields[lines]:>10,} lines"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[why]}"),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, progress: BulkProgress) -> None:
        if progress.phase not in self._tasks:
            self._tasks[progress.phase] = self._progress.add_task(progress.phase, total=1.0, lines=0, why="")
        self._progress.update(
            self._tasks[progress.phase],
            completed=progress.share,
            lines=progress.lines,
            why=progress.waiting_for or "",
        )


class _Lines:
    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def __call__(self, progress: BulkProgress) -> None:
        from collect_ops.cli.output import print_error

        now = time.monotonic()
        if now - self._told_at < _PAUSE_S and progress.waiting_for is None:
            return
        self._told_at = now
        waits = f", waits: {progress.waiting_for}" if progress.waiting_for else ""
        print_error(f"{progress.phase}: {progress.lines:,} lines, {progress.share:.0%}{waits}")
