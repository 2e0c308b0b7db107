"""A console block: commands after a `$`, each with what it prints; and whether what it prints is what stands there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from tests.documents.blocks import DocumentFault

PROMPT = re.compile(r"^(?:\w+)?\$ ")
EXIT_STATUS = re.compile(r"exit status (\d+)")
#: Numbers, times and generated ids differ from run to run; lines of tables are as long as their columns are wide.
NUMBER = r"[-+]?\d[\d,.:]*"
PARTS = re.compile(
    rf"""(?P<noun>\b(?:task|letter|redrive|group)s?\ )(?P<id>[0-9a-f]*\d[0-9a-f]*…?|[0-9a-f]{{4,}}…?)
      | (?P<rule>[─━╭╮╰╯+|=-]{{3,}})
      | (?P<rest>\s*…)
      | (?P<key>\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{{8,}}\b)
      | (?P<number>{NUMBER})
      | (?P<space>\s+)""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command of a block.

    Attributes:
        text: the command, comment included, over as many lines as it has.
        output: what stands below it.
    """

    text: str
    output: tuple[str, ...]

    @property
    def exit_status(self) -> int:
        """What its comment says of its exit status; 0 when it says nothing."""
        found = EXIT_STATUS.search(self.text.rpartition("#")[2])
        return int(found[1]) if found else 0


def commands_of(body: str, place: str) -> Iterator[Command]:
    """The commands of a console block.

    Raises:
        DocumentFault: it does not begin with one.
    """
    lines = body.rstrip("\n").split("\n")
    at = 0
    while at < len(lines):
        prompt = PROMPT.match(lines[at])
        if prompt is None:
            raise DocumentFault(
                f"{place}: a console block begins with a command after `$ `, not {lines[at]!r}"
            )
        text = lines[at][prompt.end() :]
        at += 1
        while not _is_complete(text) and at < len(lines):
            text += "\n" + lines[at]
            at += 1
        output = []
        while at < len(lines) and not PROMPT.match(lines[at]):
            output.append(lines[at])
            at += 1
        yield Command(text=text, output=tuple(output))


def _is_complete(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:  # a quotation that goes on
        return False
    return not text.endswith("\\")


def compare(expected: tuple[str, ...], printed: str) -> dict[str, str]:
    """Hold what was printed against what stands in the document.

    Numbers, times and generated keys may differ; `…` stands for anything, on a line of its own for any lines. Blank
    lines do not count.

    Returns:
        What ids of the document are in this run: `task 62` below a command binds 62.

    Raises:
        DocumentFault: with the line that is not there.
    """
    there = [line for line in printed.splitlines() if line.strip()]
    bound: dict[str, str] = {}
    at, skip = 0, False
    for line in (line for line in expected if line.strip()):
        if line.strip() == "…":
            skip = True
            continue
        pattern, ids = _pattern(line)
        candidates = range(at, len(there)) if skip else range(at, min(at + 1, len(there)))
        found = next((n for n in candidates if re.fullmatch(pattern, there[n].strip())), None)
        if found is None:
            raise DocumentFault(f"not printed: {line!r}\nprinted was:\n" + "\n".join(there))
        match = re.fullmatch(pattern, there[found].strip())
        assert match is not None
        bound |= {name: match[f"id{number}"] for number, name in enumerate(ids)}
        at, skip = found + 1, False
    if expected and not skip and at < len(there):
        raise DocumentFault(
            f"printed, and not in the document: {there[at]!r}\nall of it:\n" + "\n".join(there)
        )
    return bound


def _pattern(line: str) -> tuple[str, list[str]]:
    """A regular expression for a line, and the ids that its groups hold."""
    ids: list[str] = []

    def part(found: re.Match[str]) -> str:
        if found["noun"]:
            ids.append(found["id"])
            return re.escape(found["noun"]) + rf"(?P<id{len(ids) - 1}>[0-9a-f]+)"
        if found["rule"]:
            return r"[─━╭╮╰╯+|=-]+"
        if found["rest"]:
            return ".*"
        if found["key"]:
            return "[0-9a-f]+"
        return rf"{NUMBER}" if found["number"] else r"\s+"

    pieces, at = [], 0
    text = line.strip()
    for found in PARTS.finditer(text):
        pieces += [re.escape(text[at : found.start()]), part(found)]
        at = found.end()
    return "".join([*pieces, re.escape(text[at:])]), ids


def with_ids(text: str, bound: dict[str, str]) -> str:
    """A command with the ids of this run in the place of the document's."""
    for name, value in bound.items():
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", value, text)
    return text
