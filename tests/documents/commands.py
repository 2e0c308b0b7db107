"""Commands that documents name, run or not: groups, commands and options are there."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from collect_ops.cli.app import app

CODE_BLOCK = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
TARGET = re.compile(r"^([a-z][a-z-]*):.*## ", re.MULTILINE)
SEPARATORS = {";", "&&", "||", "|", "&", "(", ")"}


def command_faults(shell: str, targets: set[str]) -> list[str]:
    """What is wrong with the `collect-ops` and `make` commands of a line.

    Args:
        shell: one command or several, as a shell reads them.
        targets: those of the Makefile.
    """
    faults: list[str] = []
    for simple in _simple_commands(shell):
        words = list(itertools.dropwhile(lambda word: re.fullmatch(r"[A-Z_]+=.*", word), simple))
        name = words[0].rpartition("/")[2] if words else ""
        if name == "collect-ops":
            faults += _option_faults(words[1:])
        elif name == "make":
            faults += [
                f"make {word}: no such target"
                for word in words[1:]
                if re.fullmatch(r"[a-z][a-z-]*", word) and word not in targets
            ]
    return faults


def _simple_commands(shell: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(shell.replace("\\\n", " "), posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    try:
        for word in lexer:
            if word in SEPARATORS:
                yield words
                words = []
            else:
                words.append(word)
    except ValueError:  # half a quotation: what came before it is looked at
        pass
    yield words


def _option_faults(words: list[str]) -> Iterator[str]:
    """Unknown commands and options of one call of `collect-ops`."""
    command: Any = typer.main.get_command(app)
    path, known = "collect-ops", _options(command)
    for word in (word.strip("[]…,.") for word in words):
        if word == "--":
            return
        if word.startswith("-") and not re.fullmatch(r"-\d.*|-+", word):
            if word.partition("=")[0] not in known:
                yield f"{path} {word}: no such option; there are {', '.join(sorted(known))}"
        elif hasattr(command, "commands") and re.fullmatch(r"[a-z][a-z-]*", word):
            if word not in command.commands:
                yield f"{path} {word}: no such command; there are {', '.join(sorted(command.commands))}"
                return
            command, path = command.commands[word], f"{path} {word}"
            known |= _options(command)


def _options(command: Any) -> set[str]:
    names = {"--help", "-h"}
    for parameter in command.params:
        if parameter.param_type_name == "option":
            names |= {*parameter.opts, *parameter.secondary_opts}
    return names


def sentences_code(text: str) -> Iterator[str]:
    """Code within sentences."""
    yield from (span.replace(r"\|", "|") for span in CODE_SPAN.findall(CODE_BLOCK.sub("", text)))


def make_targets(checkout: Path) -> set[str]:
    """The targets of the Makefile."""
    return set(TARGET.findall((checkout / "Makefile").read_text(encoding="utf-8")))
