"""The fenced blocks of a document, and what the comments before them say.

Every block is an example, and an example is run as it stands unless a comment directly before it says otherwise:

    <!-- not run here: REASON -->                  what it names is still looked at: commands, options, targets
    <!-- file: include/sources/x.yaml -->          it is written there before what follows is run, and validated
    <!-- a part of a source; the rest: YAML -->    together they are a source, which is loaded
    <!-- rules: NAME -->                           it is loaded as include/rules/NAME.yaml
    <!-- schema: NAME -->                          it fits include/messages/NAME.schema.json
    <!-- first:                                    commands that are run before it, as in a console block: they
    $ collect-ops submit flights --force           bring about what the example speaks of
    task 62 admitted, now QUEUED
    -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^\s*```(\w*)\s*$")
COMMENT = re.compile(r"<!--\s*(.*?)\s*-->\s*\Z", re.DOTALL)
#: What a comment may say, each with something behind a colon.
MARKS = ("not run here", "file", "a part of a source; the rest", "rules", "schema", "first")


class DocumentFault(AssertionError):
    """A document, or an example in it, is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block.

    Attributes:
        document: its document's path below the checkout.
        line: where its content begins.
        language: the word after the fence.
        body: what stands in it.
        marks: what comments directly before it say, by mark.
    """

    document: str
    line: int
    language: str
    body: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where it is, as editors understand it."""
        return f"{self.document}:{self.line}"


def blocks_of(text: str, document: str) -> Iterator[Block]:
    """The blocks of a document, in order.

    Raises:
        DocumentFault: a fence is never closed, or a comment says something that no mark is.
    """
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        opened = FENCE.match(lines[at])
        if opened is None:
            at += 1
            continue
        end = next((n for n in range(at + 1, len(lines)) if lines[n].strip() == "```"), None)
        if end is None:
            raise DocumentFault(f"{document}:{at + 1}: the fence is never closed")
        yield Block(
            document=document,
            line=at + 2,
            language=opened[1],
            body="\n".join(lines[at + 1 : end]) + "\n",
            marks=dict(_marks("\n".join(lines[:at]), f"{document}:{at + 1}")),
        )
        at = end + 1


def _marks(before: str, place: str) -> Iterator[tuple[str, str]]:
    """What the comments at the end of a text say."""
    while (start := before.rstrip().rfind("<!--")) >= 0 and (found := COMMENT.fullmatch(before, start)):
        name, _, value = found[1].partition(":")
        if name.strip() not in MARKS or not value.strip():
            raise DocumentFault(f"{place}: {found[1]!r} is no mark; there are {', '.join(MARKS)}")
        yield name.strip(), value.strip("\n ")
        before = before[:start]


def blocks_in(path: Path, checkout: Path) -> list[Block]:
    """The blocks of a file."""
    return list(blocks_of(path.read_text(encoding="utf-8"), str(path.relative_to(checkout))))
