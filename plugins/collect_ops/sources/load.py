"""Loading source declarations: `include/sources/*.yaml`."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from collect_ops.kernel.errors import CollectOpsError, Fault, Permanent, ValidationFailed, did_you_mean
from collect_ops.kernel.faults import MAX_FAULTS, capped, faults_from, meant_field, place_of
from collect_ops.kernel.paths import include_dir
from collect_ops.kernel.yaml_text import read_yaml
from collect_ops.sources.declaration import Json
from collect_ops.sources.examples import EXAMPLE_PREFIX, EXAMPLES_VARIABLE, examples_are_on
from collect_ops.sources.file_defaults import ChangedReading, changed_readings, with_file_defaults
from collect_ops.sources.loading_rules import LOADING_RULES
from collect_ops.sources.model import Source


class UnknownSource(CollectOpsError, Permanent):
    """No source of this name is declared.

    Args:
        name: The name that was given.
        known: The names that are declared.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(sorted(known))
        close = did_you_mean(name, self.known)
        hint = f"; did you mean {close!r}?" if close else ""
        declared = ", ".join(self.known) or "none"
        if name.startswith(EXAMPLE_PREFIX) and not examples_are_on():
            hint = f"; the project's examples are off: {EXAMPLES_VARIABLE}=1 turns them on"
        super().__init__(f"source {name!r} is not declared in include/sources (declared: {declared}){hint}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a folder of declarations holds.

    Args:
        sources: The valid ones by name, in the order of their names.
        faults: What is wrong with the others, by file.
    """

    sources: Mapping[str, Source]
    faults: Mapping[Path, ValidationFailed]


def sources_dir() -> Path:
    """The folder of the declarations."""
    return include_dir() / "sources"


def source_files(directory: Path | None = None) -> list[Path]:
    """The files of a folder's declarations, in the order of their names.

    Args:
        directory: The folder, with all its files; `include/sources`, with the examples only if they are on, when not
            given.
    """
    files = sorted((directory or sources_dir()).glob("*.yaml"))
    if directory is not None or examples_are_on():
        return files
    return [path for path in files if not path.stem.startswith(EXAMPLE_PREFIX)]


def load_source(path: Path) -> Source:
    """The source that a file declares.

    Raises:
        ValidationFailed: The file cannot be read, or has faults; all of them.
    """
    subject = f"source file {path.name}"
    try:
        content = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise ValidationFailed(subject, [Fault(field="file", value=path.name, problem=problem)]) from error
    try:
        source, faults = _read(content, path)
    except Exception as error:
        # Whatever a file does to what reads it is a fault of this file, and takes no other down.
        problem = f"cannot be read ({type(error).__name__}: {error})"
        fault = Fault(field="file", value=path.name, problem=problem)
        raise ValidationFailed(subject, capped([fault])) from error
    if source is None or faults:
        raise ValidationFailed(subject, capped(faults))
    return with_file_defaults(source)


def changed_readings_of(path: Path) -> list[ChangedReading]:
    """What a file leaves out that meant something else in an earlier release; nothing of a file with faults."""
    source, faults = _read(path.read_bytes(), path)
    return [] if source is None or faults else changed_readings(source)


def _read(content: bytes, path: Path) -> tuple[Source | None, list[Fault]]:
    data, text_faults = read_yaml(content)
    if data is None and text_faults:
        return None, text_faults
    source, faults = _validated(data)
    return source, [*text_faults, *faults, *_name_faults(data, path)]


def load_sources(directory: Path | None = None) -> Loaded:
    """All declared sources; a file with faults does not take the others down.

    Args:
        directory: The folder, `include/sources` when not given.
    """
    sources: dict[str, Source] = {}
    faults: dict[Path, ValidationFailed] = {}
    for path in source_files(directory):
        try:
            source = load_source(path)
        except ValidationFailed as failed:
            faults[path] = failed
        else:
            sources[source.name] = source
    return Loaded(sources=sources, faults=faults)


def get_source(name: str, directory: Path | None = None) -> Source:
    """One declared source; only its file is read, and read again only when it has changed, faulty or not.

    Args:
        name: Its name.
        directory: The folder, `include/sources` when not given.

    Raises:
        UnknownSource: There is no such file.
        ValidationFailed: The file has faults.
    """
    path = (directory or sources_dir()) / f"{name}.yaml"
    seen = _seen(path)
    is_off = directory is None and name.startswith(EXAMPLE_PREFIX) and not examples_are_on()
    kept = None if is_off else _kept.get(path)
    if kept is not None and seen is not None and kept.seen == seen:
        return _outcome(kept)
    known = {file.stem: file for file in source_files(directory)}
    if name not in known:
        raise UnknownSource(name, known)
    outcome: Source | ValidationFailed
    try:
        outcome = load_source(known[name])
    except ValidationFailed as failed:
        if failed.__cause__ is not None:
            raise  # it could not be read, or not be judged: the next time it may be
        outcome = failed
    read = _Kept(seen=seen, outcome=outcome)
    if seen is not None and time.time_ns() - seen.changed_ns > _SETTLED_NS:
        _kept[path] = read
    return _outcome(read)


# Reading a declaration takes nine milliseconds, naming the faults of a large one a second or two, and a batch of
# submissions asks for the same few a thousand times.
@dataclass(frozen=True, slots=True)
class _Seen:
    """What tells one content of a file from the next without opening it."""

    changed_ns: int
    size_bytes: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    seen: _Seen | None
    outcome: Source | ValidationFailed


def _outcome(kept: _Kept) -> Source:
    if isinstance(kept.outcome, ValidationFailed):
        # Each time another one: an error that is raised again and again collects the traces of all who raised it.
        raise ValidationFailed(kept.outcome.subject, kept.outcome.faults)
    return kept.outcome


_kept: dict[Path, _Kept] = {}
# File systems count time in steps of milliseconds: a file that has just been written may be written again unseen.
_SETTLED_NS = 1_000_000_000


def _seen(path: Path) -> _Seen | None:
    try:
        found = path.stat()
    except (OSError, ValueError):  # no such file, or a name that no file can have: what follows says so
        return None
    return _Seen(max(found.st_mtime_ns, found.st_ctime_ns), found.st_size, found.st_ino)


def _name_faults(data: Json, path: Path) -> list[Fault]:
    name = data.get("name") if isinstance(data, dict) else None
    if isinstance(name, str) and name != path.stem:
        return [Fault(field="name", value=name, problem=f"must be the file's name, {path.stem!r}")]
    return []


def _validated(data: Json) -> tuple[Source | None, list[Fault]]:
    """The source, or all that is wrong with it.

    Pydantic looks at a source as a whole only when every field is right. So faulty fields are taken out until
    what is left holds; the rules between fields that look at none of them then have their say. It ends: every round
    takes something out, and the last one is the round that cannot.
    """
    left = copy.deepcopy(data)
    unreadable: set[str] = set()
    faults: list[Fault] = []
    while True:
        context = {"unreadable": frozenset(unreadable), "rules": LOADING_RULES}
        try:
            source = Source.model_validate(left, context=context)
        except ValidationError as error:
            faults += [one for one in faults_from(error, Source) if one.field not in unreadable]
            if len(faults) > MAX_FAULTS or not _take_out(left, error, unreadable):
                return None, faults
        else:
            return (None if faults else source), faults


# What stands in for required fields that are missing or faulty, while the rest is looked at.
_STAND_INS: dict[str, Json] = {"name": "stand_in", "connection": "stand_in", "target": {"table": "stand_in"}}


def _take_out(data: Json, error: ValidationError, unreadable: set[str]) -> bool:
    """Take what is faulty out of the input; False when nothing could be taken."""
    parts: list[tuple[str | int, ...]] = []
    for one in error.errors(include_url=False):
        place = place_of(one["loc"], Source)
        if not place.steps:
            continue
        missing, unknown = one["type"] == "missing", one["type"] == "extra_forbidden"
        parts.append(_replaceable(place.steps, missing=missing))
        unreadable |= {_dotted(parts[-1]), place.dotted}
        if unknown and (meant := meant_field(place)):
            unreadable.add(_dotted((*place.steps[:-1], meant)))
    if _replace_all(data, parts):
        return True
    outer = {steps[:1] for steps in parts}
    unreadable |= set(map(_dotted, outer))
    return _replace_all(data, outer)


def _replace_all(data: Json, parts: Iterable[tuple[str | int, ...]]) -> bool:
    """Take out every part that is there; whether any was."""
    return sum(_replace(data, steps) for steps in parts) > 0


def _dotted(steps: tuple[str | int, ...]) -> str:
    return ".".join(map(str, steps))


def _replaceable(steps: tuple[str | int, ...], *, missing: bool) -> tuple[str | int, ...]:
    """The smallest part that can be taken out without making others faulty."""
    if steps[:2] == ("request", "params") and len(steps) > 3:
        return steps[:3]  # a parameter's fields are only right together
    return steps[:-1] if missing and len(steps) > 1 else steps


def _replace(data: Json, steps: tuple[str | int, ...]) -> bool:
    """Take a part out, or the list that it is in; whether there was anything to take."""
    for depth, step in enumerate(steps[:-1], start=1):
        # A part further out may be gone already.
        if not (isinstance(data, dict) and step in data):
            return False
        if not isinstance(data[step], dict):
            return _take(data, steps[:depth])
        data = data[step]
    return isinstance(data, dict) and _take(data, steps)


def _take(holder: dict[Any, Json], steps: tuple[str | int, ...]) -> bool:
    last = steps[-1]
    before = holder.get(last, _NOTHING)
    if len(steps) == 1 and last in _STAND_INS:
        holder[last] = copy.deepcopy(_STAND_INS[str(last)])
        return bool(holder[last] != before)
    if steps[:2] == ("request", "params") and len(steps) == 3 and before not in ({}, _NOTHING):
        holder[last] = {}  # its name is still there to be used
        return True
    return holder.pop(last, _NOTHING) is not _NOTHING


_NOTHING = object()


def is_sheddable(name: str) -> bool:
    """Whether a source's declaration, as it is now, lets a backlog rule cancel its waiting tasks."""
    try:
        return get_source(name).sheddable
    except UnknownSource:
        return False


def source_names(directory: Path | None = None) -> list[str]:
    """The names of the declared sources, valid or not: the stems of the files, which are not opened."""
    return [path.stem for path in source_files(directory)]
