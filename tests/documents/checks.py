"""What is done with a block: it is loaded, or run, by its language and its marks."""

from __future__ import annotations

import json
import logging
import re
import shlex
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jsonschema
import yaml

from collect_ops.execution.rules import ShardingRules
from collect_ops.kernel.errors import CollectOpsError
from collect_ops.kernel.rules_file import Rules, load_rules
from collect_ops.lanes.backlog_rules import BacklogRules
from collect_ops.lanes.priority import PriorityRules
from collect_ops.lanes.rules import LaneRules
from collect_ops.maintenance.retention_rules import RetentionRules
from collect_ops.nodes.rules import PlacementRules
from collect_ops.sources.load import load_source
from tests.documents.blocks import Block, DocumentFault
from tests.documents.commands import command_faults, make_targets
from tests.documents.console import Command, commands_of, compare, with_ids
from tests.documents.session import Session

log = logging.getLogger(__name__)
CHECKOUT: Final = Path(__file__).resolve().parents[2]
RULES: Final[dict[str, type[Rules]]] = {
    "backlog": BacklogRules,
    "lanes": LaneRules,
    "placement": PlacementRules,
    "priority": PriorityRules,
    "retention": RetentionRules,
    "sharding": ShardingRules,
}
#: What a part of a source is not, unless the document gives it.
REST_OF_A_SOURCE: Final[dict[str, Any]] = {
    "name": "part",
    "connection": "example_api",
    "request": {"path": "/part"},
    "records": "rows",
    "target": {"table": "part"},
}
SHELLS: Final = ("bash", "sh")
PROGRAMS: Final = {"python": ".stack/venv/bin/python", "javascript": "node"}
SUFFIXES: Final = {"python": ".py", "javascript": ".mjs"}


def what_is_done_with(block: Block) -> str:
    """One word: `not run`, `loaded` or `run`.

    Raises:
        DocumentFault: nothing can be done with it, and no comment says why.
    """
    if "not run here" in block.marks:
        return "not run"
    if block.language == "yaml" or (block.language == "json" and "schema" in block.marks):
        return "loaded"
    if block.language in ("console", "sql", *SHELLS, *PROGRAMS):
        return "run"
    raise DocumentFault(
        f"{block.place}: nothing can be done with a block of {block.language or 'no language'}: "
        "<!-- not run here: REASON --> before it, or another mark, says what it is"
    )


def check_commands(block: Block) -> None:
    """Look at the commands of a console block without running them.

    Raises:
        DocumentFault: a command, an option or a target is not there.
    """
    if block.language != "console":
        return
    targets = make_targets(CHECKOUT)
    for command in commands_of(block.body, block.place):
        if faults := command_faults(command.text, targets):
            raise DocumentFault(f"{block.place}: {'; '.join(faults)}")


def load(block: Block, folder: Path) -> None:
    """Load what is no program: with the project's own loaders.

    Args:
        block: a block of YAML or JSON.
        folder: an empty one.

    Raises:
        DocumentFault: it is not what it is said to be.
    """
    try:
        if block.language == "json":
            _fit_schema(block)
        elif name := block.marks.get("rules"):
            path = folder / f"{name}.yaml"
            path.write_text(block.body, encoding="utf-8")
            load_rules(path, RULES[name])
        else:
            _load_source(block, folder)
    except (CollectOpsError, jsonschema.ValidationError, ValueError, KeyError, yaml.YAMLError) as error:
        raise DocumentFault(f"{block.place}: {error}") from error


def _load_source(block: Block, folder: Path) -> None:
    text = block.body
    if rest := block.marks.get("a part of a source; the rest"):
        given = {} if rest == "none" else yaml.safe_load(textwrap.dedent(rest))
        text = json.dumps(REST_OF_A_SOURCE | given | yaml.safe_load(block.body))
    name = re.search(r'^(?:\{.*)?"?name"?: "?(\w+)', text, re.MULTILINE)
    if name is None:
        raise DocumentFault(f"{block.place}: no source: <!-- a part of a source; the rest: … --> or `name`")
    path = folder / f"{name[1]}.yaml"
    path.write_text(text, encoding="utf-8")
    load_source(path)


def _fit_schema(block: Block) -> None:
    path = CHECKOUT / "include/messages" / f"{block.marks['schema']}.schema.json"
    jsonschema.validate(json.loads(block.body), json.loads(path.read_text(encoding="utf-8")))


@dataclass(slots=True, kw_only=True)
class Runner:
    """Runs a document's blocks, one after the other, in one shell.

    Attributes:
        session: the shell.
        desk: where it works.
        bound: ids of the document, and what they are in this run.
        home: the stack's folder, which documents call `.stack`.
    """

    session: Session
    desk: Path
    bound: dict[str, str] = field(default_factory=dict)
    home: Path | None = None

    def run(self, block: Block) -> None:
        """Do with the block what its language and its marks ask for.

        Raises:
            DocumentFault: it is wrong, with its place.
        """
        try:
            if first := block.marks.get("first"):
                self._run_console(first, block.place)
            self._run(block)
        except DocumentFault as fault:
            text = str(fault)
            raise DocumentFault(text if text.startswith(block.place) else f"{block.place}: {text}") from fault

    def _run(self, block: Block) -> None:
        done = what_is_done_with(block)
        if done == "loaded":
            folder = self.desk / f"loaded-{block.line}"
            folder.mkdir()
            load(block, folder)
        elif done == "run" and block.language == "console":
            self._run_console(block.body, block.place)
        elif done == "run":
            self._succeed(self._command_of(block))

    def _command_of(self, block: Block) -> str:
        """What runs a block that is a program."""
        if block.language in SHELLS:
            return f"( set -euo pipefail\n{with_ids(block.body, self.bound)}\n)"
        if block.language == "sql":
            statements = [text for text in re.split(r";\s*(?:\n|$)", block.body) if text.strip()]
            explained = [shlex.quote(f"EXPLAIN {with_ids(text, self.bound)}") for text in statements]
            return " && ".join(f"psql -qX -v ON_ERROR_STOP=1 -c {text}" for text in explained)
        path = self.desk / f"block-{block.line}{SUFFIXES[block.language]}"
        path.write_text(block.body, encoding="utf-8")
        return f'AIRFLOW_HOME="$PWD" {PROGRAMS[block.language]} {path.name}'

    def _run_console(self, body: str, place: str) -> None:
        for command in commands_of(body, place):
            self._succeed(with_ids(command.text, self.bound), command)

    def _succeed(self, text: str, command: Command | None = None) -> None:
        began = time.monotonic()
        status, printed = self.session.run(text)
        printed = printed.replace(str(self.home), ".stack") if self.home else printed
        log.info("%5.1f s, exit status %d: %s", time.monotonic() - began, status, text)
        expected = command.exit_status if command else 0
        if status != expected:
            raise DocumentFault(f"exit status {status}, not {expected}: {text}\n{printed}")
        if command and command.output:
            try:
                self.bound |= compare(command.output, printed)
            except DocumentFault as fault:
                raise DocumentFault(f"{text}: {fault}") from fault
