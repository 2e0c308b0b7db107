"""Loading source declarations: `include/sources/*.yaml`."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from collect_ops.kernel.errors import CollectOpsError, Fault, Permanent, ValidationFailed, did_you_mean
from collect_ops.kernel.faults import faults_from, meant_field, place_of
from collect_ops.kernel.paths import include_dir
from collect_ops.kernel.yaml_text import read_yaml
from collect_ops.sources.declaration import Json
from collect_ops.sources.model import Source
from collect_ops.sources.refusals import refusals_of


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
    data, text_faults = read_yaml(content)
    if data is None and text_faults:
        raise ValidationFailed(subject, text_faults)
    source, faults = _validated(data)
    refused = () if source is None else refusals_of(source)
    faults = [*text_faults, *faults, *_name_faults(data, path), *refused]
    if source is None or faults:
        raise ValidationFailed(subject, faults)
    return source


def load_sources(directory: Path | None = None) -> Loaded:
    """All declared sources; a file with faults does not take the others down.

    Args:
        directory: The folder, `include/sources` when not given.
    """
    directory = directory or sources_dir()
    sources: dict[str, Source] = {}
    faults: dict[Path, ValidationFailed] = {}
    for path in sorted(directory.glob("*.yaml")):
        try:
            source = load_source(path)
        except ValidationFailed as failed:
            faults[path] = failed
        else:
            sources[source.name] = source
    return Loaded(sources=sources, faults=faults)


def get_source(name: str, directory: Path | None = None) -> Source:
    """One declared source; only its file is read, and read again only when it has changed.

    Args:
        name: Its name.
        directory: The folder, `include/sources` when not given.

    Raises:
        UnknownSource: There is no such file.
        ValidationFailed: The file has faults.
    """
    directory = directory or sources_dir()
    path = directory / f"{name}.yaml"
    seen = _seen(path)
    kept = _kept.get(path)
    if kept is not None and seen is not None and kept.seen == seen:
        return kept.source
    known = {file.stem: file for file in directory.glob("*.yaml")}
    if name not in known:
        raise UnknownSource(name, known)
    source = load_source(known[name])
    if seen is not None and time.time_ns() - seen.changed_ns > _SETTLED_NS:
        _kept[path] = _Kept(seen=seen, source=source)
    return source


# Reading a declaration takes nine milliseconds, and a batch of submissions asks for the same few a thousand times.
@dataclass(frozen=True, slots=True)
class _Seen:
    """What tells one content of a file from the next without opening it."""

    changed_ns: int
    size_bytes: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    seen: _Seen
    source: Source


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
    what is left holds; the rules between fields that look at none of them then have their say.
    """
    left = copy.deepcopy(data)
    unreadable: set[str] = set()
    faults: list[Fault] = []
    while True:
        try:
            source = Source.model_validate(left, context={"unreadable": frozenset(unreadable)})
        except ValidationError as error:
            found = [one for one in faults_from(error, Source) if one.field not in unreadable]
            faults += found
            if not _take_out(left, error, unreadable):
                return None, faults
        else:
            return (None if faults else source), faults


# What stands in for required fields that are missing or faulty, while the rest is looked at.
_STAND_INS: dict[str, Json] = {"name": "stand_in", "connection": "stand_in", "target": {"table": "stand_in"}}


def _take_out(data: Json, error: ValidationError, unreadable: set[str]) -> bool:
    """Take what is faulty out of the input; False when nothing is left to take."""
    places = [
        (place_of(one["loc"], Source), one["type"]) for one in error.errors(include_url=False) if one["loc"]
    ]
    for place, kind in places:
        steps = _replaceable(place.steps, missing=kind == "missing")
        unreadable.add(".".join(map(str, steps)))
        unreadable.add(place.dotted)
        if kind == "extra_forbidden" and (meant := meant_field(place)):
            unreadable.add(".".join(map(str, (*place.steps[:-1], meant))))
        _replace(data, steps)
    return bool(places)


def _replaceable(steps: tuple[str | int, ...], *, missing: bool) -> tuple[str | int, ...]:
    """The smallest part that can be taken out without making others faulty."""
    if steps[:2] == ("request", "params") and len(steps) > 3:
        return steps[:3]  # a parameter's fields are only right together
    return steps[:-1] if missing and len(steps) > 1 else steps


def _replace(data: Json, steps: tuple[str | int, ...]) -> None:
    for step in steps[:-1]:
        # A part further out may be gone already.
        if not (isinstance(data, dict) and step in data):
            return
        data = data[step]
    last = steps[-1]
    if not isinstance(data, dict):
        return
    if len(steps) == 1 and last in _STAND_INS:
        data[last] = _STAND_INS[last]
    elif steps[:2] == ("request", "params") and len(steps) == 3:
        data[last] = {}  # its name is still there to be used
    else:
        data.pop(last, None)


def is_sheddable(name: str) -> bool:
    """Whether a source's declaration, as it is now, lets a backlog rule cancel its waiting tasks."""
    try:
        return get_source(name).sheddable
    except UnknownSource:
        return False


def source_names(directory: Path | None = None) -> list[str]:
    """The names of the declared sources, valid or not: the stems of the files, which are not opened."""
    return sorted(path.stem for path in (directory or sources_dir()).glob("*.yaml"))
