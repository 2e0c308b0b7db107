"""The documents say what is there: packages, targets, commands, links and examples."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from benchmarks.__main__ import BENCHMARKS
from collect_ops import __version__
from collect_ops.cli.app import app
from collect_ops.sources.load import load_source

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "plugins" / "collect_ops"
DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])
CODE_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def text_of(name: str) -> str:
    return (CHECKOUT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return [body for found, body in CODE_BLOCK.findall(text_of(name)) if found == language]


def code_in(text: str) -> Iterator[str]:
    """Lines of code blocks, and code within sentences."""
    for _, body in CODE_BLOCK.findall(text):
        yield from body.splitlines()
    yield from CODE_SPAN.findall(CODE_BLOCK.sub("", text))


def table_below(text: str, heading: str) -> set[str]:
    """What the first column of the first table below a heading names in code."""
    section = re.split(r"^#", text.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in CODE_SPAN.findall(row.split("|")[1])}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):.*## ", text_of("Makefile"), re.MULTILINE))


def test_the_architecture_lists_the_packages_that_are_there() -> None:
    there = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert table_below(text_of("docs/architecture.md"), "## Packages") == there


def test_the_architecture_lists_the_tables_that_migrations_make() -> None:
    migrations = (CHECKOUT / "include" / "sql" / "migrations").glob("*.sql")
    made = {
        name for path in migrations for name in re.findall(r"CREATE TABLE collect\.(\w+)", path.read_text())
    }
    assert table_below(text_of("docs/architecture.md"), "## Tables") == made


def test_the_readme_lists_the_rules_that_are_there() -> None:
    there = {path.name for path in (CHECKOUT / "include" / "rules").glob("*.yaml")}
    section = text_of("README.md").split("\n## Configuration\n")[1].split("\n## ")[0]
    assert set(re.findall(r"\(include/rules/(\w+\.yaml)\)", section)) == there


def test_package_project_and_changelog_name_one_version() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))["project"]["version"]
    newest = re.search(r"^## (\d+\.\d+\.\d+)", text_of("CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert {project, __version__, newest[1]} == {project}


def test_the_list_of_benchmarks_is_complete() -> None:
    assert table_below("\n" + text_of("docs/benchmarks.md"), "# Benchmarks") == set(BENCHMARKS)


def test_every_decision_is_headed_by_its_number() -> None:
    records = (CHECKOUT / "docs" / "adr").glob("[0-9]*.md")
    assert [path.name for path in records if not path.read_text().startswith(f"# {path.name[:4]} ")] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for target in LINK.findall(CODE_BLOCK.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def anchors(file: Path) -> set[str]:
    """The anchors that headings get: lower case, spaces as hyphens, punctuation left out."""
    text = CODE_BLOCK.sub("", file.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_make_targets_that_documents_name_exist(path: Path) -> None:
    named = set()
    for code in code_in(path.read_text(encoding="utf-8")):
        named |= set(re.findall(r"\bmake (?:-s )?([a-z][a-z-]*)", code.split("#")[0]))
    assert named - make_targets() == set()


def test_operations_describe_every_make_target() -> None:
    assert table_below(text_of("docs/operations.md"), "### make") == make_targets()


def test_operations_describe_every_command() -> None:
    command = typer.main.get_command(app)
    commands = command.commands  # type: ignore[attr-defined]
    groups = {name: each.commands for name, each in commands.items() if hasattr(each, "commands")}
    wanted = set(commands) - set(groups)
    wanted |= {f"{group} {name}" for group, names in groups.items() for name in names}
    described = text_of("docs/operations.md").split("### collect-ops", 1)[1].split("\n## ", 1)[0]
    # `source list`, `show`, … : the group is said once a line.
    missing = {name for name in wanted if not re.search(rf"`(?:[a-z]+ )?{name.split()[-1]}\b", described)}
    assert missing == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_documents_hold_for_every_checkout(path: Path) -> None:
    assert str(CHECKOUT) not in path.read_text(encoding="utf-8")


def test_every_decision_is_in_the_index() -> None:
    index = text_of("docs/adr/README.md")
    records = {path.name for path in (CHECKOUT / "docs" / "adr").glob("[0-9]*.md")}
    assert records == set(re.findall(r"\((\d{4}-[a-z0-9-]+\.md)\)", index))


def test_every_dependency_has_its_reason() -> None:
    reasons = text_of("docs/adr/0002-dependencies.md")
    names = re.findall(r"^([\w-]+)", text_of("requirements.txt"), re.MULTILINE)
    assert names
    assert [name for name in names if not re.search(rf"^\|.*\b{name}\b", reasons, re.MULTILINE)] == []


def test_the_readmes_first_source_is_valid(tmp_path: Path) -> None:
    (declaration,) = blocks("README.md", "yaml")
    path = tmp_path / "carrier_flights.yaml"
    path.write_text(declaration, encoding="utf-8")
    assert load_source(path).target.table == "carrier_flights"


def test_the_readmes_dags_are_dags() -> None:
    (example,) = blocks("README.md", "python")
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert {"collect", "submit"} <= set(names)
